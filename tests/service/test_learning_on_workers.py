"""Evaluation and prediction on Dask workers that are processes: the digits and bytes of one process, whoever dies."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
import torch
from distributed import Client, LocalCluster, WorkerPlugin

from splicestore.models.card import save_model
from splicestore.models.splice import SpliceNet
from splicestore.storage import StoreRoot
from tests.service.remote import SPLIT, check, cli, objects_of, one_line
from tests.service.study import write_study

N_GENOMES = 6
"""Of one block each, so there are as many lanes and as many shards to predict."""
NETWORK = {"n_conditions": 1, "context_size": 100, "channels": 8, "dilations": [1, 4], "kernel_size": 5}
STARTING_S = 60


def task_log(folder, dies_at):
    """A plugin that writes a line per task; the worker that begins the n-th of all tasks, from 1, is killed in it."""

    # Defined here, so that it travels by value: a worker that imported this module would import all that it tests.
    class TaskLog(WorkerPlugin):
        name = "task-log"

        def transition(self, key, start, finish, *args, **kwargs):
            if finish == "executing":
                self.write("begun", key)
                with open(f"{folder}/begun") as file:
                    if dies_at and len(file.readlines()) >= dies_at and self.is_first_to("die"):
                        os.kill(os.getpid(), signal.SIGKILL)
            elif start == "executing":
                self.write(finish, key)

        def write(self, what, key):
            with open(f"{folder}/{what}", "a") as file:
                file.write(f"{key} {os.getpid()}\n")

        def is_first_to(self, what):
            try:
                os.close(os.open(f"{folder}/{what}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return False
            return True

    return TaskLog()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A store with a split, two models, and what one process says of them."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder / "in", n_genomes=N_GENOMES)
    check(cli("ingest", "genomes", folder / "store", folder / "in" / "genomes.json"))
    words = ("--orthology", folder / "in" / "orthologs.tsv", *SPLIT)
    check(cli("split", "windows", folder / "store", "run1", *words))
    for seed, name in enumerate(("model", "control")):
        torch.manual_seed(seed)
        save_model(
            StoreRoot(str(folder / name)), SpliceNet(**NETWORK), name=name, factory="splicestore.models.splice:SpliceNet",
            factory_options=NETWORK, window_size=400, context_size=100, condition_names=["Brain_1"],
        )  # fmt: skip
    (folder / "metrics.json").write_text(evaluated(folder))
    shutil.copytree(folder / "store", folder / "predicted")
    check(predict(folder, folder / "predicted"))
    return folder


def evaluate(study, *words):
    cards = (study / "model" / "card.json", "--control", study / "control" / "card.json", "--device", "cpu")
    return cli("evaluate", study / "store", "run1", *cards, "--json", *words)


def evaluated(study, *words):
    return check(evaluate(study, *words)).stdout


def predict(study, store, *words):
    model = ("--model", study / "model" / "card.json", "--device", "cpu")
    return cli("predict", store, "p1", *model, "--split", "run1", "--subset", "test", "--json", *words)


class Workers:
    """Two worker processes with a log of their tasks."""

    def __init__(self, cluster, folder, dies_at):
        self.scheduler, self.folder = cluster.scheduler_address, folder
        with Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=STARTING_S)
            client.register_plugin(task_log(str(folder), dies_at))

    def tasks(self, what):
        """(key, pid) of tasks that have ``begun`` or ended in ``memory``."""
        return [tuple(line.rsplit(" ", 1)) for line in (self.folder / what).read_text().splitlines()]

    def killed_tasks(self):
        """Keys of tasks that began in a process that died in them, and ended in another one."""
        done = dict(self.tasks("memory"))
        return [key for key, pid in self.tasks("begun") if (key, pid) not in self.tasks("memory") and key in done]


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        yield cluster


@pytest.fixture
def two_workers(cluster, tmp_path):
    """Begins a log of their tasks; ``dies_at`` names the task in which one is killed."""
    return lambda dies_at=0: Workers(cluster, tmp_path, dies_at)


# -- metrics -----------------------------------------------------------------------------------------------------


def test_metrics_of_two_workers_are_those_of_one_process(study, two_workers):
    workers = two_workers()
    assert evaluated(study, "--scheduler", workers.scheduler) == (study / "metrics.json").read_text()
    # The model's lanes, and the control's.
    assert len(workers.tasks("begun")) == len(workers.tasks("memory")) == 2 * N_GENOMES
    assert len({pid for _, pid in workers.tasks("memory")} - {str(os.getpid())}) == 2
    metrics = json.loads((study / "metrics.json").read_text())["scorers"]
    # Held-out gene bodies: 2 genes of 5 introns in each genome.
    assert metrics["model"]["sites"]["all"]["donor"]["n_true"] == 10 * N_GENOMES
    assert metrics["model"]["usage"]["pooled"]["n"] == 20 * N_GENOMES
    assert list(metrics) == ["model", "baseline", "control"]


def test_a_worker_killed_in_a_lane_changes_no_digit(study, two_workers):
    workers = two_workers(dies_at=4)
    assert evaluated(study, "--scheduler", workers.scheduler) == (study / "metrics.json").read_text()
    assert len(workers.killed_tasks()) == 1


@pytest.mark.parametrize("scheduler", ["threads:2", pytest.param("processes:2", marks=pytest.mark.slow)])
def test_every_scheduler_gives_the_same_digits(study, scheduler):
    assert evaluated(study, "--scheduler", scheduler) == (study / "metrics.json").read_text()


def test_a_scheduler_that_does_not_exist_is_refused(study):
    assert "--scheduler 'slurm': use sync, threads" in one_line(evaluate(study, "--scheduler", "slurm"), 3)


# -- predictions -------------------------------------------------------------------------------------------------


def test_predictions_of_two_workers_are_those_of_one_process(study, two_workers, tmp_path):
    workers = two_workers()
    shutil.copytree(study / "store", tmp_path / "store")
    report = json.loads(check(predict(study, tmp_path / "store", "--scheduler", workers.scheduler)).stdout)
    assert report["status"] == "published"
    assert objects_of(StoreRoot(str(tmp_path / "store"))) == objects_of(StoreRoot(str(study / "predicted")))
    assert len(workers.tasks("begun")) == len(workers.tasks("memory")) == N_GENOMES
    assert len({pid for _, pid in workers.tasks("memory")} - {str(os.getpid())}) == 2
    again = json.loads(check(predict(study, tmp_path / "store", "--scheduler", workers.scheduler)).stdout)
    assert again["status"] == "unchanged"
    assert len(workers.tasks("begun")) == N_GENOMES


def test_a_worker_killed_in_a_shard_changes_no_byte(study, two_workers, tmp_path):
    workers = two_workers(dies_at=3)
    shutil.copytree(study / "store", tmp_path / "store")
    check(predict(study, tmp_path / "store", "--scheduler", workers.scheduler))
    assert objects_of(StoreRoot(str(tmp_path / "store"))) == objects_of(StoreRoot(str(study / "predicted")))
    assert len(workers.killed_tasks()) == 1
