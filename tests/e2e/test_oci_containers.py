"""What a Pod's spec asks for, looked at from inside real containers."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from isoplane.client.streams import ExecOptions
from isoplane.node import mounting
from isoplane.node.images import ImageStore
from isoplane.node.runtime.oci import OciRuntime
from isoplane.node.runtime.oci.layout import Layout
from isoplane.node.runtime.protocol import Materials, NetworkInterface, RuntimeFailure, RuntimeReason
from isoplane.workload import eviction
from isoplane.workload.pod import PodAdapter
from isoplane.workload.shape import UnitObserved, UnitState, Workload
from oci_support import demo_images, traces_of
from support import require

pytestmark = pytest.mark.root

IMAGE = "isoplane.io/demo/busybox:1"
OBJECTS: dict[str, dict[str, Any]] = {
    "configmaps/settings": {"data": {"mode": "fast", "note": "two\nlines"}, "binaryData": {"blob": "AAE="}},
    "secrets/keys": {"data": {"password": base64.b64encode(b"s3cret").decode()}},
}
NO_SECRET = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k"}}}
MATERIALS = Materials(objects=OBJECTS, node_name="here", node_addresses=("192.0.2.1",))


def declare(uid: str, containers: list[dict[str, Any]], **spec: Any) -> Workload:
    annotations = {"team": "blue"}
    metadata = {
        "name": f"pod-{uid}",
        "namespace": "tests",
        "uid": uid,
        "labels": {"app": "web"},
        "annotations": annotations,
    }
    declared = {"hostNetwork": True, "nodeName": "here", "containers": containers, **spec}
    workload = PodAdapter().project({"metadata": metadata, "spec": declared})
    return _with_recipe(workload, declared)


def _with_recipe(workload: Workload, spec: dict[str, Any]) -> Workload:
    import dataclasses

    return dataclasses.replace(workload, recipe=spec)


def shell(script: str, **fields: Any) -> dict[str, Any]:
    return {"name": "c", "image": IMAGE, "command": ["/bin/sh", "-c", script], **fields}


class Host:
    """A runtime on this machine, and what tests ask of it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.runtime = OciRuntime(data_dir, ImageStore(demo_images()), rotate_period=0.05, rotate_at=20_000)

    async def run(self, workload: Workload, materials: Materials = MATERIALS) -> None:
        await self.runtime.prepare(workload, materials)
        for unit in workload.units:
            await self.runtime.start_unit(workload, unit, 0, materials)

    async def ended(self, uid: str, unit: str = "c", seconds: float = 10.0) -> UnitObserved:
        deadline = time.monotonic() + seconds
        while True:
            observed = await self.runtime.observe(uid)
            assert observed is not None
            found = observed.unit(unit)
            if found.state is UnitState.EXITED:
                return found
            assert time.monotonic() < deadline, f"{found} did not end"
            await asyncio.sleep(0.01)

    async def seen(self, uid: str, unit: str = "c") -> UnitObserved:
        observed = await self.runtime.observe(uid)
        assert observed is not None
        return observed.unit(unit)

    async def output(self, workload: Workload, materials: Materials = MATERIALS) -> str:
        """Run a workload of one container to its end and return what it said; it must end well."""
        await self.run(workload, materials)
        ended = await self.ended(workload.uid)
        said = await self.said(workload.uid)
        assert ended.exit_code == 0, (ended, said)
        return said

    async def said(self, uid: str, unit: str = "c", **options: Any) -> str:
        settings: dict[str, Any] = {
            "follow": False, "tail_lines": None, "since": None, "previous": False, "timestamps": False, **options,
        }  # fmt: skip
        return b"".join([line async for line in self.runtime.logs(uid, unit, **settings)]).decode()


@pytest_asyncio.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    require("crun", "conmon", "skopeo", "umoci", root=True)
    made = Host(tmp_path)
    await made.runtime.start()
    try:
        yield made
    finally:
        for observed in await made.runtime.observe_all():
            await made.runtime.remove(observed.uid)
        await made.runtime.close()
    assert traces_of(tmp_path) == []


async def run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0


async def until(ask: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not await ask():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.02)


async def test_environment_from_every_source(host: Host) -> None:
    env = [
        {"name": "PLAIN", "value": "x"},
        {"name": "TWICE", "value": "$(PLAIN)$(PLAIN) $$(PLAIN) $(UNKNOWN)"},
        {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
        {"name": "ABSENT", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x", "optional": True}}},
        {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
        {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]
    container = shell("env", env=env, envFrom=[{"prefix": "CM_", "configMapRef": {"name": "settings"}}])
    container["resources"] = {"limits": {"memory": "64Mi"}}
    lines = (await host.output(declare("w", [container]))).splitlines()
    for line in (
        "PLAIN=x", "TWICE=xx $(PLAIN) $(UNKNOWN)", "MODE=fast", "PASSWORD=s3cret", "ME=pod-w", "APP=web", "NODE=here",
        "HOST=192.0.2.1", "MEM=64", "CM_mode=fast",
    ):  # fmt: skip
        assert line in lines, lines
    assert not any(line.startswith("ABSENT") for line in lines)


async def test_command_and_args_replace_the_images(host: Host) -> None:
    container = {"name": "c", "image": IMAGE, "command": ["/bin/echo"], "args": ["$(WHO)", "there"]}
    container["env"] = [{"name": "WHO", "value": "you"}]
    assert await host.output(declare("w", [container])) == "you there\n"


async def test_working_directory_user_and_groups(host: Host) -> None:
    security = {"runAsUser": 1234, "runAsGroup": 5678}
    workload = declare(
        "w", [shell("pwd; id -u; id -g; id -G", workingDir="/tmp", securityContext=security)],
        securityContext={"fsGroup": 99, "supplementalGroups": [42]},
    )  # fmt: skip
    assert (await host.output(workload)).split() == ["/tmp", "1234", "5678", "5678", "42", "99"]


async def test_run_as_non_root_refuses_root(host: Host) -> None:
    workload = declare("w", [shell("true", securityContext={"runAsNonRoot": True})])
    with pytest.raises(RuntimeFailure) as caught:
        await host.run(workload)
    assert caught.value.reason is RuntimeReason.CREATE_CONFIG
    assert "runAsNonRoot" in caught.value.message


async def test_read_only_root_and_capabilities(host: Host) -> None:
    script = "touch /x 2>&1; grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status"
    security = {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
    }
    said = await host.output(declare("w", [shell(script, securityContext=security)]))
    assert "Read-only file system" in said
    assert "CapEff:\t0000000000000400" in said
    assert "NoNewPrivs:\t1" in said


async def test_privileged_has_everything(host: Host) -> None:
    said = await host.output(
        declare("w", [shell("grep CapEff /proc/self/status; ls /dev | wc -l", securityContext={"privileged": True})])
    )
    assert next(line for line in said.splitlines() if "CapEff" in line) in Path("/proc/self/status").read_text()
    assert int(said.split()[-1]) > 20


async def test_unprivileged_cannot_mount_or_see_kernel_files(host: Host) -> None:
    script = "mount -t tmpfs none /mnt 2>/dev/null && echo mounted; cat /proc/kcore 2>/dev/null | head -c 1 | wc -c"
    assert (await host.output(declare("w", [shell(script)]))).split() == ["0"]


async def test_seccomp_is_on_unless_one_chooses_to_be_unconfined(host: Host) -> None:
    script = "grep -w Seccomp: /proc/self/status; unshare -U true 2>&1 || true; (sleep 0 & wait) && echo forked"
    said = await host.output(declare("w", [shell(script)]))
    assert "Seccomp:\t2" in said
    assert "Operation not permitted" in said
    assert "forked" in said
    for number, chosen in enumerate(({"seccompProfile": {"type": "Unconfined"}}, {"privileged": True})):
        said = await host.output(
            declare(f"w{number}", [shell("grep -w Seccomp: /proc/self/status", securityContext=chosen)])
        )
        assert "Seccomp:\t0" in said


async def test_nothing_is_mounted_over_what_is_the_kernels(host: Host) -> None:
    mounts = [{"name": "v", "mountPath": "/tmp/../proc/self"}]
    with pytest.raises(RuntimeFailure, match="/proc, which is the kernel's") as caught:
        await host.run(declare("w", [shell("true", volumeMounts=mounts)], volumes=[{"name": "v", "emptyDir": {}}]))
    assert caught.value.reason is RuntimeReason.CREATE_CONFIG


async def test_what_is_written_is_measured_and_small_files_are_not_on_the_disk(host: Host) -> None:
    script = """
        dd if=/dev/zero of=/root/big bs=1M count=3 2>/dev/null
        dd if=/dev/zero of=/v/big bs=1M count=2 2>/dev/null
        ln /v/big /v/again
        ln -s /proc/kcore /v/link
        d=/v; for n in $(seq 300); do d=$d/a; mkdir $d || break; done; cd $d && dd if=/dev/zero of=deep bs=1M count=1 2>/dev/null
        for small in /dev/termination-log /etc/hosts /etc/hostname /etc/resolv.conf; do
            dd if=/dev/zero of=$small bs=1M count=64 2>&1 | grep -o "No space left"
        done
        sync
    """
    volumes = [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "m", "emptyDir": {"medium": "Memory"}}]
    mounts = [{"name": "v", "mountPath": "/v"}, {"name": "m", "mountPath": "/m"}]
    workload = declare("w", [shell(script, volumeMounts=mounts)], volumes=volumes)
    assert (await host.output(workload)).split("\n")[:-1] == 4 * ["No space left"]
    use = await host.runtime.storage(workload)
    assert 3 << 20 <= use.units["c"] < 4 << 20
    assert set(use.volumes) == {"v"}
    assert 3 << 20 <= use.volumes["v"] < 5 << 20
    verdict = eviction.judge(workload, use)
    assert verdict is not None
    assert verdict.message.startswith('Usage of EmptyDir volume "v"')
    assert (await host.runtime.storage(declare("none", [shell("true")]))).total == 0


async def test_a_pods_limits_hold_for_all_of_its_containers(host: Host) -> None:
    level = {"requests": {"memory": "32Mi"}, "limits": {"memory": "48Mi", "cpu": "1m"}}
    hungry = shell("cat /proc/self/cgroup; exec dd if=/dev/zero of=/dev/null bs=200M count=1")
    workload = declare("w", [hungry], resources={**level, "limits": {"memory": "48Mi"}}, restartPolicy="Never")
    await host.run(workload)
    ended = await host.ended("w")
    assert (ended.reason, ended.exit_code) == ("OOMKilled", 137), await host.said("w")
    for name, wanted in (("one", level), ("two", {"limits": {"cpu": "1500m"}})):
        await host.runtime.prepare(declare(name, [shell("true")], resources=wanted), MATERIALS)
    found = {}
    for name in ("one", "two"):
        for file in ("cpu.max", "cpu.cfs_quota_us", "memory.max", "memory.limit_in_bytes"):
            for path in Path("/sys/fs/cgroup").glob(f"**/isoplane/*/{name}/{file}"):
                found[name, file.split(".")[0]] = path.read_text().split()[0]
    assert found["one", "cpu"] == "1000", "the kernel's least"
    assert found["one", "memory"] == str(48 << 20)
    assert found["two", "cpu"] == "150000"
    assert found.get(("two", "memory"), "max") == "max"


async def test_volumes_of_every_kind(host: Host, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("from the host")
    volumes = [
        {"name": "empty", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "outside", "hostPath": {"path": str(outside), "type": "Directory"}},
        {"name": "made", "hostPath": {"path": str(tmp_path / "made"), "type": "DirectoryOrCreate"}},
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        {"name": "me", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "all", "projected": {"sources": [
            {"configMap": {"name": "settings", "items": [{"key": "mode", "path": "deep/mode"}]}},
            {"secret": {"name": "keys"}},
        ]}},
    ]  # fmt: skip
    mounts = [{"name": v["name"], "mountPath": f"/v/{v['name']}"} for v in volumes]
    mounts.append({"name": "settings", "mountPath": "/etc/mode", "subPath": "mode"})
    mounts.append({"name": "outside", "mountPath": "/ro", "readOnly": True})
    script = """
        echo hello > /v/empty/f && cat /v/empty/f
        head -c 2000000 /dev/zero > /v/memory/f 2>/dev/null || echo full
        cat /v/outside/file; echo
        echo back > /v/made/f
        cat /v/settings/mode /etc/mode; echo; wc -c < /v/settings/blob
        cat /v/keys/password; echo; stat -L -c %a /v/keys/password
        stat -f -c %T /v/keys /v/all
        cat /v/me/labels; echo
        cat /v/all/deep/mode /v/all/password; echo
        touch /ro/x 2>/dev/null || echo read-only
        touch /v/settings/x 2>/dev/null || echo read-only
    """
    said = await host.output(declare("w", [shell(script, volumeMounts=mounts)], volumes=volumes))
    expected = [
        "hello",
        "full",
        "from the host",
        "fastfast",
        "2",
        "s3cret",
        "400",
        "tmpfs",
        "tmpfs",
        'app="web"',
        "fasts3cret",
        "read-only",
    ]
    assert said.splitlines() == [*expected, "read-only"]
    assert (tmp_path / "made" / "f").read_text() == "back\n"


async def test_sub_paths_are_the_volumes_own_and_read_only_goes_down(host: Host, tmp_path: Path) -> None:
    """A subPath that is made has the volume's mode and group; links in it lead nowhere; recursiveReadOnly holds below."""
    below = tmp_path / "h/sub"
    below.mkdir(parents=True)
    mounting.mount("tmpfs", below, "tmpfs")
    volumes = [{"name": "v", "emptyDir": {}}, {"name": "h", "hostPath": {"path": str(tmp_path / "h")}}]
    mounts = [
        {"name": "v", "mountPath": "/whole"},
        {"name": "v", "mountPath": "/data", "subPath": "sub"},
        {"name": "v", "mountPath": "/deep", "subPath": "a/b/c"},
        {"name": "h", "mountPath": "/h", "readOnly": True, "recursiveReadOnly": "Enabled"},
        {"name": "h", "mountPath": "/plain", "readOnly": True},
    ]
    script = """
        for d in /whole /data /deep; do touch $d/x && echo writable $(stat -c %g $d); done
        touch /whole/sub/seen && ls /data
        touch /h/sub/x 2>/dev/null || echo read-only below
        touch /plain/sub/x && echo writable below
    """
    security = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000}
    try:
        os.chmod(below, 0o777)
        said = await host.output(
            declare("w", [shell(script, volumeMounts=mounts)], volumes=volumes, securityContext=security)
        )
    finally:
        mounting.unmount(below)
    writable = ["writable 2000"] * 3
    assert said.splitlines() == [*writable, "seen", "x", "read-only below", "writable below"]


async def test_mounted_files_follow_their_objects_and_sub_paths_do_not(host: Host) -> None:
    volumes = [
        {"name": "m", "configMap": {"name": "settings"}},
        {"name": "s", "secret": {"secretName": "late", "optional": True, "defaultMode": 0o400}},
    ]
    mounts = [
        {"name": "m", "mountPath": "/m"},
        {"name": "s", "mountPath": "/s"},
        {"name": "m", "mountPath": "/one", "subPath": "mode"},
    ]
    workload = declare("w", [shell("sleep 1000", volumeMounts=mounts)], volumes=volumes)
    await host.run(workload)
    changed: dict[str, Any] = {
        "configmaps/settings": {"data": {"mode": "slow", "more": "x"}},
        "secrets/late": {"data": {"password": base64.b64encode(b"s3cret").decode()}},
    }
    await host.runtime.refresh(workload, Materials(objects=changed, node_name="here"))
    script = "cat /m/mode /m/more /one; ls /m; cat /s/password; stat -L -c %a /s/password; stat -f -c %T /s"
    said = await host.runtime.exec("w", "c", ["/bin/sh", "-c", script], 10)
    assert said.output.decode().replace("s3cret", "s3cret ").split() == [
        "slowxfastmode", "more", "s3cret", "400", "tmpfs",
    ]  # fmt: skip


async def test_an_empty_dir_survives_a_restart_and_is_shared(host: Host) -> None:
    script = "cat /v/count 2>/dev/null; echo again >> /v/count; echo $HOSTNAME > /v/name"
    mounts = [{"name": "v", "mountPath": "/v"}]
    containers = [
        shell(script, volumeMounts=mounts),
        {**shell("until [ -s /v/count ]; do sleep 0.05; done; cat /v/count", volumeMounts=mounts), "name": "d"},
    ]
    workload = declare("w", containers, volumes=[{"name": "v", "emptyDir": {"medium": "Memory"}}])
    await host.run(workload)
    await host.ended("w", "c")
    await host.ended("w", "d")
    assert await host.said("w", "d") == "again\n"
    await host.runtime.start_unit(workload, workload.units[0], 1, MATERIALS)
    await host.ended("w", "c")
    assert await host.said("w", "c") == "again\n"


async def test_a_root_file_system_is_fresh_in_each_attempt(host: Host) -> None:
    workload = declare("w", [shell("ls /mark 2>/dev/null; touch /mark")])
    await host.run(workload)
    await host.ended("w")
    await host.runtime.start_unit(workload, workload.units[0], 1, MATERIALS)
    await host.ended("w")
    assert await host.said("w") == ""


async def test_containers_of_a_pod_share_ipc_and_shm(host: Host) -> None:
    script = "readlink /proc/self/ns/ipc; until [ -e /dev/shm/x ]; do sleep 0.05; done; echo found"
    containers = [shell(script), {**shell("readlink /proc/self/ns/ipc; touch /dev/shm/x"), "name": "d"}]
    await host.run(declare("w", containers))
    await host.ended("w", "c")
    await host.ended("w", "d")
    first, second = await host.said("w", "c"), await host.said("w", "d")
    assert first.split() == [second.strip(), "found"]
    assert second.strip() != os.readlink("/proc/self/ns/ipc")


async def test_containers_of_a_pod_share_its_network(host: Host) -> None:
    name = f"isoplane-oci-test-{os.getpid()}"
    await run("ip", "netns", "add", name)
    try:
        await run("ip", "-n", name, "link", "set", "lo", "up")
        network = NetworkInterface(netns=f"/run/netns/{name}", address="198.51.100.7", prefix_length=24)
        web = {"name": "d", "image": "isoplane.io/demo/web:1"}
        script = "until wget -qO- http://127.0.0.1:8080/ 2>/dev/null; do sleep 0.1; done; "
        script += "cat /etc/hosts; hostname; ls /sys/class/net"
        workload = declare("w", [shell(script), web], hostNetwork=False, hostname="mine")
        materials = Materials(objects=OBJECTS, network=network)
        await host.run(workload, materials)
        await host.ended("w")
        said = await host.said("w")
        assert "Hello from a container" in said
        assert "198.51.100.7\tmine" in said
        assert said.splitlines()[-2:] == ["mine", "lo"]
        observed = await host.runtime.observe("w")
        assert observed is not None
        assert observed.addresses == ("198.51.100.7",)
        await host.runtime.remove("w")
    finally:
        await run("ip", "netns", "delete", name)


async def test_memory_limit_and_oom_kill(host: Host) -> None:
    # tail keeps the last line of its input in memory, and this line has no end.
    container = shell("tail /dev/zero", resources={"limits": {"memory": "20Mi"}})
    container["command"] = ["/bin/busybox", "tail", "/dev/zero"]
    await host.run(declare("w", [container]))
    ended = await host.ended("w", seconds=20)
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")


async def test_limits_are_in_the_cgroup(host: Host) -> None:
    resources = {"requests": {"cpu": "250m"}, "limits": {"memory": "32Mi", "cpu": "500m"}}
    script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
    workload = declare("w", [shell("sleep 60", resources=resources)])
    await host.run(workload)
    layout = host.runtime._layout
    cgroup = layout.cgroup("w", "c", 0)
    roots = Path("/sys/fs/cgroup")
    if (roots / "cgroup.controllers").exists():
        base = roots / cgroup[1:]
        assert (base / "memory.max").read_text().strip() == str(32 << 20)
        assert (base / "cpu.max").read_text().split() == ["50000", "100000"]
    else:
        assert int((roots / f"memory{cgroup}/memory.limit_in_bytes").read_text()) == 32 << 20
        assert int((roots / f"cpu{cgroup}/cpu.cfs_quota_us").read_text()) == 50000
        assert int((roots / f"cpu{cgroup}/cpu.shares").read_text()) == 256
        assert int((roots / f"pids{cgroup}/pids.max").read_text()) == 4096
    assert (await host.runtime.exec("w", "c", ["/bin/sh", "-c", script], 5)).output == b"33554432\n"


async def test_termination_message(host: Host) -> None:
    await host.run(declare("w", [shell("echo the reason > /dev/termination-log; exit 1")]))
    ended = await host.ended("w")
    assert (ended.message, ended.reason, ended.exit_code) == ("the reason\n", "Error", 1)


async def test_termination_messages_of_earlier_attempts_take_no_memory(host: Host) -> None:
    workload = declare("w", [shell("echo said $(ls /dev/*-log) > /dev/termination-log; exit 1")])
    await host.run(workload)
    for attempt in range(1, 4):
        await host.ended("w")
        await host.runtime.start_unit(workload, workload.units[0], attempt, MATERIALS)
        observed = await host.runtime.observe("w")
        assert observed is not None
        before = observed.unit("c").before
        assert before is not None
        assert before.message == "said /dev/termination-log\n"
    layout = Layout(host.data_dir)
    assert [path.name for path in (layout.pod("w") / "etc").glob("message-*")] == ["message-c-3"]
    assert not list((layout.pod("w") / "units").rglob("message"))


async def test_termination_message_from_the_log(host: Host) -> None:
    container = shell("echo first; echo last words; exit 1", terminationMessagePolicy="FallbackToLogsOnError")
    await host.run(declare("w", [container]))
    assert (await host.ended("w")).message == "first\nlast words\n"


@pytest.mark.parametrize(
    ("container", "reason", "words"),
    [
        ({"command": ["/no/such"]}, RuntimeReason.RUN, "/no/such"),
        ({"image": "isoplane.io/demo/none:1"}, RuntimeReason.ERR_IMAGE_PULL, "isoplane image"),
        ({"image": "x/y:1", "imagePullPolicy": "Never"}, RuntimeReason.IMAGE_NEVER_PULL, "docker.io/x/y:1"),
        ({"image": "Not A Name"}, RuntimeReason.INVALID_IMAGE_NAME, "Not A Name"),
        ({"env": [NO_SECRET]}, RuntimeReason.CREATE_CONFIG, '"no"'),
        ({"volumeMounts": [{"name": "no", "mountPath": "/v"}]}, RuntimeReason.CREATE_CONFIG, "'no'"),
        ({"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]}, RuntimeReason.CREATE_CONFIG, "volumeDevices"),
        ({"securityContext": {"procMount": "Unmasked"}}, RuntimeReason.CREATE_CONFIG, "procMount"),
        ({"securityContext": {"capabilities": {"add": ["FLY"]}}}, RuntimeReason.CREATE_CONFIG, "CAP_FLY"),
    ],
)  # fmt: skip
async def test_what_cannot_be_had_is_said(
    host: Host, container: dict[str, Any], reason: RuntimeReason, words: str
) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        await host.run(declare("w", [{"name": "c", "image": IMAGE, **container}]))
    assert caught.value.reason is reason, caught.value.message
    assert words in caught.value.message
    assert "container 'c'" in caught.value.message
    observed = await host.runtime.observe("w")
    assert observed is None or observed.unit("c").state is UnitState.ABSENT


async def test_a_failed_start_can_be_tried_again(host: Host) -> None:
    workload = declare("w", [shell("echo fine", workingDir="/v/sub", volumeMounts=[{"name": "v", "mountPath": "/v"}])],
                       volumes=[{"name": "v", "emptyDir": {}}])  # fmt: skip
    broken = declare("w", [{"name": "c", "image": IMAGE, "command": ["/no/such"]}])
    await host.runtime.prepare(workload, MATERIALS)
    with pytest.raises(RuntimeFailure):
        await host.runtime.start_unit(broken, broken.units[0], 0, MATERIALS)
    await host.runtime.start_unit(workload, workload.units[0], 0, MATERIALS)
    assert (await host.ended("w")).exit_code == 0


async def test_logs_tail_since_timestamps_and_long_lines(host: Host) -> None:
    script = "for i in 1 2 3 4 5; do echo line $i; done; head -c 40000 /dev/zero | tr '\\0' x; echo; echo oops >&2; printf end"
    await host.run(declare("w", [shell(script)]))
    await host.ended("w")
    lines = (await host.said("w")).splitlines()
    assert lines[:5] == [f"line {i}" for i in range(1, 6)]
    assert "x" * 40000 in lines
    assert {"oops", "end"} <= set(lines)
    assert (await host.said("w", tail_lines=2)).splitlines() == lines[-2:]
    assert await host.said("w", tail_lines=0) == ""
    assert await host.said("w", since=time.time() + 5) == ""
    assert len((await host.said("w", since=time.time() - 60)).splitlines()) == len(lines)
    stamped = (await host.said("w", timestamps=True)).splitlines()[0]
    assert stamped.endswith("Z line 1")


async def test_logs_rotate_and_a_follower_misses_nothing(host: Host) -> None:
    count = 4000
    script = f"i=0; while [ $i -lt {count} ]; do echo number $i; i=$((i+1)); [ $((i%200)) = 0 ] && sleep 0.03; done"
    await host.run(declare("w", [shell(script)]))
    seen = (await host.said("w", follow=True)).splitlines()
    assert seen == [f"number {i}" for i in range(count)]
    directory = host.runtime._layout.attempt("w", "c", 0).directory
    files = sorted(path.name for path in directory.glob("log*"))
    assert "log.1" in files
    assert len(files) <= 5
    kept = (await host.said("w")).splitlines()
    assert kept[-1] == f"number {count - 1}"
    assert kept == seen[-len(kept) :]
    assert (await host.said("w", tail_lines=700)).splitlines() == seen[-700:]


async def test_exec_has_the_containers_view_and_a_deadline(host: Host) -> None:
    await host.run(declare("w", [shell("sleep 60", env=[{"name": "A", "value": "b"}], workingDir="/tmp")]))
    result = await host.runtime.exec("w", "c", ["/bin/sh", "-c", "echo $A; pwd; echo err >&2; exit 3"], 5)
    assert (result.exit_code, result.output) == (3, b"b\n/tmp\nerr\n") or sorted(result.output.split()) == [
        b"/tmp", b"b", b"err",
    ]  # fmt: skip
    late = await host.runtime.exec("w", "c", ["/bin/sh", "-c", "sleep 5; echo > /tmp/ended"], 0.3)
    assert late.exit_code == 124
    assert (await host.runtime.exec("w", "c", ["/bin/ls", "/tmp/ended"], 5)).exit_code != 0, "it was not waited for"
    missing = await host.runtime.exec("w", "c", ["/no/such"], 5)
    assert missing.exit_code != 0
    many = await asyncio.gather(*(host.runtime.exec("w", "c", ["/bin/echo", str(i)], 10) for i in range(12)))
    assert [r.output for r in many] == [f"{i}\n".encode() for i in range(12)]


async def test_interactive_exec_by_pipes(host: Host) -> None:
    await host.run(declare("w", [shell("sleep 60")]))
    execution = await host.runtime.exec_interactive("w", "c", ["/bin/cat"], tty=False)
    os.write(execution.stdin, b"hello")
    execution.close_stdin()
    assert await execution.wait() == 0
    assert os.read(execution.stdout, 100) == b"hello"
    execution.close()


async def test_interactive_exec_on_a_terminal(host: Host) -> None:
    await host.run(declare("w", [shell("sleep 60")]))
    execution = await host.runtime.exec_interactive("w", "c", ["/bin/sh"], tty=True)
    execution.resize(33, 121)
    os.write(execution.stdin, b"stty size; tty; exit 5\n")
    assert await execution.wait() == 5
    said = os.read(execution.stdout, 65536)
    assert b"33 121" in said
    assert b"/dev/pts/" in said
    execution.close()


async def test_a_container_with_a_terminal(host: Host) -> None:
    assert (await host.output(declare("w", [shell("tty; echo done", tty=True, stdin=True)]))).split() == [
        "/dev/pts/0",
        "done",
    ]


async def test_a_host_path_without_a_type_is_made(host: Host, tmp_path: Path) -> None:
    volumes = [{"name": "v", "hostPath": {"path": str(tmp_path / "new" / "deep")}}]
    await host.output(
        declare("w", [shell("touch /v/x", volumeMounts=[{"name": "v", "mountPath": "/v"}])], volumes=volumes)
    )
    assert (tmp_path / "new" / "deep" / "x").exists()


async def test_a_session_carries_more_than_a_pipe_holds(host: Host) -> None:
    await host.run(declare("w", [shell("sleep 60")]))
    session = await host.runtime.open_exec("w", "c", ExecOptions(("/bin/cat",), "", True, True, True, False))
    sent = os.urandom(1_000_000)

    async def feed() -> None:
        await session.write_stdin(sent)
        await session.close_stdin()

    feeding = asyncio.create_task(feed())
    got = b"".join([data async for channel, data in session.output() if channel == 1])
    await feeding
    assert await session.wait() == 0
    assert got == sent
    await session.close()


async def test_a_session_tells_streams_apart_and_ends_with_the_command(host: Host) -> None:
    await host.run(declare("w", [shell("sleep 60")]))
    command = ("/bin/sh", "-c", "echo out; echo err >&2; sleep 30 & exit 7")
    session = await host.runtime.open_exec("w", "c", ExecOptions(command, "", False, True, True, False))
    async with asyncio.timeout(5):
        pieces = [piece async for piece in session.output()]
    assert sorted(pieces) == [(1, b"out\n"), (2, b"err\n")]
    assert await session.wait() == 7
    await session.close()


async def test_a_client_that_leaves_ends_its_command(host: Host) -> None:
    await host.run(declare("w", [shell("sleep 60")]))
    for tty in (False, True):
        session = await host.runtime.open_exec(
            "w", "c", ExecOptions(("/bin/sleep", "77"), "", True, True, not tty, tty)
        )
        await asyncio.sleep(0.1)
        await session.resize(100, 30)
        await session.close()

    async def gone() -> bool:
        return b"77" not in (await host.runtime.exec("w", "c", ["/bin/ps"], 5)).output

    await until(gone)


async def test_a_killed_supervisor_does_not_hide_the_end(host: Host) -> None:
    changes: list[str] = []
    host.runtime.on_change(changes.append)
    await host.run(declare("w", [shell("trap '' PIPE; sleep 60")]))
    attempt = host.runtime._layout.attempt("w", "c", 0)
    os.kill(int(attempt.conmon_pid.read_text()), signal.SIGKILL)
    await asyncio.sleep(0.2)
    observed = await host.runtime.observe("w")
    assert observed is not None
    assert observed.unit("c").state is UnitState.RUNNING
    changes.clear()
    await host.runtime.kill_unit("w", "c")
    ended = await host.ended("w")
    assert ended.reason == "ContainerStatusUnknown"

    async def told() -> bool:
        return changes == ["w"]

    await until(told)


async def test_pre_stop_runs_before_the_signal(host: Host, tmp_path: Path) -> None:
    script = "trap 'echo term; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    hook = {"preStop": {"exec": {"command": ["/bin/sh", "-c", "sleep 0.3; echo hook > /proc/1/fd/1"]}}}
    await host.run(declare("w", [shell(script, lifecycle=hook)]))
    await asyncio.sleep(0.1)
    await host.runtime.stop_unit("w", "c")
    await host.runtime.stop_unit("w", "c")
    assert (await host.ended("w")).exit_code == 0
    assert (await host.said("w")).split() == ["up", "hook", "term"]


async def test_what_became_of_a_post_start_hook_is_kept(host: Host) -> None:
    """Pending while it runs, in another process too, which runs it again; then its failure, or that it ended well."""
    slow = {"postStart": {"exec": {"command": ["sh", "-c", "echo hook >> /proc/1/fd/1; sleep 2"]}}}
    bad = {"postStart": {"exec": {"command": ["/bin/false"]}}}
    await host.run(declare("slow", [shell("sleep 60", lifecycle=slow)]))
    await host.run(declare("bad", [shell("sleep 60", lifecycle=bad)]))
    assert (await host.seen("slow")).hook_pending
    await host.runtime.close()
    await host.runtime.start()
    assert (await host.seen("slow")).hook_pending
    async with asyncio.timeout(20):
        while (await host.seen("slow")).hook_pending or (await host.seen("bad")).hook_pending:
            await asyncio.sleep(0.05)
    assert (await host.said("slow")).split() == ["hook", "hook"]
    assert "exit code 1" in (await host.seen("bad")).hook_failure
    assert not (await host.seen("slow")).hook_failure


async def test_an_image_in_use_cannot_be_removed(host: Host) -> None:
    from isoplane.node.images import ImageError

    await host.run(declare("w", [shell("sleep 60")]))
    with pytest.raises(ImageError, match="in use"):
        await host.runtime.images.remove(IMAGE)
    assert host.runtime.images.lookup(IMAGE) is not None


async def test_fifty_at_once(host: Host) -> None:
    workloads = [declare(f"w{i}", [shell(f"echo {i}; sleep 60")]) for i in range(50)]
    await asyncio.gather(*(host.run(workload) for workload in workloads))
    states = {o.unit("c").state for o in await host.runtime.observe_all()}
    assert states == {UnitState.RUNNING}
    await asyncio.gather(*(host.runtime.remove(w.uid) for w in workloads))
    assert await host.runtime.observe_all() == []


async def test_after_a_restart_of_the_host_everything_is_known_to_be_gone(tmp_path: Path) -> None:
    require("crun", "conmon", "skopeo", "umoci", root=True)
    before = Host(tmp_path)
    await before.runtime.start()
    await before.run(declare("w", [shell("sleep 60")]))
    layout = before.runtime._layout
    attempt = layout.attempt("w", "c", 0)
    await before.runtime.close()
    # What a restart does to it: no process is left, and nobody wrote how it ended; the boot has another name.
    os.kill(int(attempt.conmon_pid.read_text()), signal.SIGKILL)
    os.kill(int(attempt.pid.read_text()), signal.SIGKILL)
    await asyncio.sleep(0.1)
    layout.boot.write_text("another")
    after = Host(tmp_path)
    await after.runtime.start()
    try:
        (observed,) = await after.runtime.observe_all()
        ended = observed.unit("c")
        assert not observed.prepared
        assert (ended.state, ended.exit_code, ended.reason) == (UnitState.EXITED, 255, "Unknown")
        workload = declare("w", [shell("sleep 60")])
        await after.runtime.prepare(workload, MATERIALS)
        await after.runtime.start_unit(workload, workload.units[0], 1, MATERIALS)
        observed = (await after.runtime.observe("w")) or observed
        assert (observed.prepared, observed.unit("c").attempt) == (True, 1)
    finally:
        await after.runtime.remove("w")
        await after.runtime.close()
    assert traces_of(tmp_path) == []


async def test_missing_tools_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("crun", "conmon", root=True)
    runtime = OciRuntime(tmp_path / "a", ImageStore(tmp_path / "images"), runtime="no-such-runtime")
    with pytest.raises(RuntimeFailure, match="no-such-runtime is not installed"):
        await runtime.start()
    monkeypatch.setenv("PATH", str(tmp_path))
    runtime = OciRuntime(tmp_path / "a", ImageStore(tmp_path / "images"))
    with pytest.raises(RuntimeFailure, match="apt-get install conmon"):
        await runtime.start()


async def test_a_full_disk_is_said_and_does_no_damage(tmp_path: Path) -> None:
    require("crun", "conmon", "skopeo", "umoci", root=True)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting.mount("tmpfs", disk, "tmpfs", 0, "size=1m")
    host = Host(disk / "data")
    try:
        await host.runtime.start()
        await host.run(declare("w", [shell("echo fine; sleep 60")]))
        room = os.statvfs(disk)
        with suppress(OSError):  # others write meanwhile
            (disk / "filler").write_bytes(b"x" * (room.f_bavail * room.f_frsize))
        with pytest.raises(RuntimeFailure) as caught:
            await host.run(declare("v", [shell("echo no")]))
        assert "No space left" in caught.value.message
        observed = await host.runtime.observe("w")
        assert observed is not None
        assert observed.unit("c").state is UnitState.RUNNING
        (disk / "filler").unlink()
        await host.run(declare("v", [shell("echo yes")]))
        assert (await host.ended("v")).exit_code == 0
        for uid in ("v", "w"):
            await host.runtime.remove(uid)
        assert traces_of(disk / "data") == []
    finally:
        await host.runtime.close()
        mounting.unmount(disk)
    beneath = OciRuntime(Path("/proc/isoplane"), ImageStore(tmp_path / "images"))
    with pytest.raises(RuntimeFailure, match="must be writable"):
        await beneath.start()
