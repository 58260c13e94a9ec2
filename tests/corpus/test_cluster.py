"""The cluster: the same face and the same care for documents as the pool, on a real Ray."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cluster_jobs
import psutil
import pytest
from test_build_corpus import prose

from gptwo.artifacts import Manifest, read_manifest
from gptwo.cluster import Cluster, _connect, _note
from gptwo.corpus.build import build_corpus
from gptwo.corpus.config import CorpusConfig
from gptwo.errors import DataError, Interrupted, NetworkError, ResourceError, UsageError
from gptwo.pool import Task
from gptwo.progress import SILENT, Reporter

HERE = Path(__file__).parent
HEAD = "10.77.0.1"
ray = pytest.importorskip("ray")


def tasks(folder: Path, inputs: list) -> list[Task]:
    return [Task(input=value, output=folder / f"{i}") for i, value in enumerate(inputs)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Ray on this machine with two workers, which find the jobs of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE))
        with Cluster("settings", 2, SILENT, "gptwo.pool") as made:
            yield made
    assert not [p for p in psutil.Process().children(recursive=True) if "ray" in p.name()]


@pytest.mark.slow
def test_documents_that_kill_and_limits_are_as_in_the_pool(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.run("test", cluster_jobs.many_kinds, tasks(tmp_path, ["", "crash", ""]))
    limits = "[True, True, True, True]"
    found = [(tmp_path / str(number)).read_text() for number in range(3)]
    assert found == [f"{{}} {limits}", f"{{7: 'SIGSEGV'}} {limits}", f"{{}} {limits}"]
    assert len(list(tmp_path.iterdir())) == 3  # no note is left


@pytest.mark.slow
def test_no_more_workers_than_asked_and_none_for_finished_tasks(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "3").write_text("done before")
    cluster.run("test", cluster_jobs.slowly, tasks(tmp_path, [None] * 4))
    assert (tmp_path / "3").read_text() == "done before"
    names = [p.name() for p in psutil.Process().children(recursive=True)]
    assert 1 <= sum(name.startswith("ray::") for name in names) - 2 <= 2  # two are Ray's own agents


@pytest.mark.slow
def test_errors_come_home(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="bad input") as caught:
        cluster.run("test", cluster_jobs.many_kinds, tasks(tmp_path, ["", "bad"]))
    assert caught.value.remedy == "fix it"
    with pytest.raises(ResourceError, match=r"does not see /nowhere/shard\.parquet"):
        cluster.run("test", cluster_jobs.many_kinds, tasks(tmp_path, ["", "missing"]))


@pytest.mark.slow
def test_a_store_that_is_not_shared_is_noticed(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptwo.cluster.STORE_SECONDS", 0.3)
    monkeypatch.setattr(Path, "exists", lambda self: False)
    with pytest.raises(ResourceError, match="is not there on"):
        cluster.run("test", cluster_jobs.slowly, tasks(tmp_path, [None]))


@pytest.mark.slow
def test_a_stop_is_heard_between_tasks(cluster: Cluster, tmp_path: Path) -> None:
    reporter = Reporter(quiet=True)
    asked = tasks(tmp_path, [None] * 6)

    def check() -> None:
        """Asks for a stop once a worker has told how far it is."""
        reporter.stop_requested = any(_note(task).exists() for task in asked)
        Reporter.check(reporter)

    reporter.check = check  # type: ignore[method-assign]
    cluster.reporter = reporter
    try:
        with pytest.raises(Interrupted):
            cluster.run("test", cluster_jobs.slowly, asked)
    finally:
        cluster.reporter = SILENT
    assert not all(task.output.exists() for task in asked)
    cluster.run("test", cluster_jobs.slowly, asked)
    assert all(task.output.exists() for task in asked)


@pytest.mark.slow
def test_a_killed_ray_worker_costs_its_task_alone(cluster: Cluster, tmp_path: Path) -> None:
    reporter = Reporter(quiet=True)
    asked = tasks(tmp_path, [None] * 4)
    killed: list[int] = []

    def check() -> None:
        if not killed and any(_note(task).exists() for task in asked):
            workers = [
                p for p in psutil.Process().children(recursive=True) if p.name() == "ray::work"
            ]
            killed.append(workers[0].pid)
            workers[0].kill()

    reporter.check = check  # type: ignore[method-assign]
    cluster.reporter = reporter
    try:
        cluster.run("test", cluster_jobs.slowly, asked)
    finally:
        cluster.reporter = SILENT
    assert killed and all(task.output.read_text() == "done" for task in asked)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six files, so six shards."""
    folder = tmp_path_factory.mktemp("sources")
    paths = []
    for number in range(6):
        rows = [{"text": prose(100 * number + i), "url": f"http://{i}.example"} for i in range(25)]
        paths.append(folder / f"{number}.jsonl")
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths


@pytest.fixture(scope="module")
def expected(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """What the pool makes of the sources."""
    out = tmp_path_factory.mktemp("pool") / "corpus"
    return build_corpus(sources, out, CorpusConfig(), workers=2)


class Build:
    """`build_script.py` on Ray in a process of its own, and the processes below it."""

    def __init__(self, out: Path, sources: list[Path], **environment: str) -> None:
        script = str(HERE / "build_script.py")
        self.out = out
        self.tally = out.with_name(f"{out.name}.tally-{time.monotonic_ns()}")
        self.process = psutil.Popen(
            [sys.executable, script, environment.get("WORKERS", "2"), str(out), *map(str, sources)],
            env={**os.environ, "EXECUTOR": "ray", "TALLY": str(self.tally), **environment},
            stdout=subprocess.PIPE,
        )
        self.below: list[psutil.Process] = []

    def until(self, files: int) -> None:
        """Wait until it has made so many files of its work."""
        while len(self.made()) < files:
            assert self.process.poll() is None, "it ended too soon"
            time.sleep(0.005)
        self.below = self.process.children(recursive=True)

    def made(self) -> set[str]:
        work = self.out / ".work"
        files = {str(path) for path in work.rglob("*") if path.is_file()}
        return {name for name in files if ".tmp-" not in name and not name.endswith("plan.json")}

    def ray_workers(self) -> list[psutil.Process]:
        return [process for process in self.below if process.name().startswith("ray::work")]

    def end(self) -> int:
        """Its exit code, once all its processes are gone."""
        code = self.process.wait(60)
        _, alive = psutil.wait_procs(self.below, timeout=10)
        assert not alive, [process.cmdline() for process in alive]
        with self.process.stdout as stdout:
            assert stdout.read() == b""  # Ray keeps its messages to itself
        return code


@pytest.mark.slow
def test_stopped_killed_and_robbed_of_a_worker_it_makes_the_corpus_of_the_pool(
    sources: list[Path], expected: Manifest, tmp_path: Path
) -> None:
    out = tmp_path / "corpus"
    stopped = Build(out, sources)
    stopped.until(files=4)
    stopped.process.send_signal(signal.SIGINT)
    assert stopped.end() == Interrupted.exit_code

    killed = Build(out, sources)
    kept = killed.made()
    assert len(kept) >= 4
    killed.until(files=len(kept) + 8)
    killed.process.kill()
    for process in killed.below:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    assert killed.end() == -signal.SIGKILL
    assert not kept & set(killed.tally.read_text().split())  # what was whole was not made again

    last = Build(out, sources)
    kept = last.made()
    assert len(kept) >= 8
    last.until(files=len(kept) + 3)
    last.ray_workers()[0].kill()
    assert last.end() == 0
    assert not kept & set(last.tally.read_text().split())
    assert read_manifest(out) == expected


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A Ray cluster of two nodes, each with a network and an address of its own."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # what Ray does otherwise depends on the home
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 2)
    name = f"g{os.getpid() % 100_000}"
    nodes = [f"{name}a", f"{name}b"]
    try:
        ip("link", "add", name, "type", "bridge")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("networks of our own are not allowed here")
    try:
        ip("addr", "add", "10.77.0.254/24", "dev", name)
        ip("link", "set", name, "up")
        for number, node in enumerate(nodes, 1):
            ip("netns", "add", node)
            ip("link", "add", f"{node}v", "type", "veth", "peer", "name", "eth0", "netns", node)
            ip("link", "set", f"{node}v", "master", name, "up")
            ip("-n", node, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            ip("-n", node, "link", "set", "eth0", "up")
            ip("-n", node, "link", "set", "lo", "up")
        start_ray(
            nodes[0],
            "--head",
            "--include-dashboard=false",
            f"--node-ip-address={HEAD}",
            "--port=6399",
        )
        start_ray(nodes[1], f"--address={HEAD}:6399", "--node-ip-address=10.77.0.2")
        yield nodes
    finally:
        for node in nodes:
            with suppress(subprocess.CalledProcessError):
                for pid in ip("netns", "pids", node).split():
                    os.kill(int(pid), signal.SIGKILL)
                ip("netns", "del", node)
        ip("link", "del", name)


def ip(*arguments: str) -> str:
    return subprocess.run(
        ["ip", *arguments], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def start_ray(node: str, *options: str) -> None:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options]
    quiet = ["--num-cpus=1", "--object-store-memory=80000000"]
    ip("netns", "exec", node, *command, *quiet, "--disable-usage-stats")


@pytest.mark.slow
def test_two_nodes_with_addresses_of_their_own(
    two_nodes: list[str], sources: list[Path], expected: Manifest, tmp_path: Path
) -> None:
    build = Build(tmp_path / "corpus", sources, ADDRESS=f"{HEAD}:6399", WORKERS="0")
    build.until(files=12)
    for node in two_nodes:  # both have had tasks
        below = [psutil.Process(int(pid)).cmdline() for pid in ip("netns", "pids", node).split()]
        assert any("multiprocessing.forkserver" in " ".join(command) for command in below)
    assert build.end() == 0
    assert read_manifest(tmp_path / "corpus") == expected


def test_addresses_that_lead_nowhere() -> None:
    with pytest.raises(UsageError, match="'nonsense' is no HOST:PORT"):
        Cluster("settings", 0, SILENT, "gptwo.pool", "nonsense")
    with pytest.raises(NetworkError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        Cluster("settings", 0, SILENT, "gptwo.pool", "127.0.0.1:1")


def test_ray_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptwo.cluster.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs ray, which is not installed") as caught:
        build_corpus([tmp_path], tmp_path / "out", CorpusConfig(), executor="ray")
    assert "gptwo[cluster]" in caught.value.remedy


@pytest.mark.parametrize(
    ("executor", "address", "problem"),
    [("slurm", "", "no executor 'slurm'"), ("pool", "head:6379", "only the executor ray")],
)
def test_executors_that_do_not_exist(
    tmp_path: Path, executor: str, address: str, problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        build_corpus(
            [tmp_path], tmp_path / "out", CorpusConfig(), executor=executor, address=address
        )
    assert not (tmp_path / "out").exists()


def test_a_slow_start_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def init(**options: object) -> None:
        tries.append(options)
        if len(tries) % 3:
            raise Exception("The current node timed out during startup.\nAnd more.")

    monkeypatch.setattr(ray, "init", init)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert _connect("", 2) is ray
    assert [t["num_cpus"] for t in tries] == [2, 2, 2] and not tries[0]["include_dashboard"]
    monkeypatch.setattr("gptwo.cluster.STARTS", 2)
    with pytest.raises(ResourceError, match=r"does not start here: .* during startup\.$"):
        _connect("", 2)
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
