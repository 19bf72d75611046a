"""What tests and benchmarks talk to: an S3 server, a proxy that breaks things on purpose, static files, and kills."""
