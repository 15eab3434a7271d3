"""From a recipe to config.json: environment, command line, users, capabilities, mounts. No container is started."""

from __future__ import annotations

import base64
import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.node.runtime.oci import capabilities, hooks, processes, projected, spec, users, volumes
from isoplane.node.runtime.oci.environment import Facts, command_line, environment, expand, resource_value
from isoplane.node.runtime.protocol import Materials, RuntimeFailure, RuntimeReason
from isoplane.workload.pod import PodAdapter
from isoplane.workload.shape import Workload


def pod(container: dict[str, Any], **fields: Any) -> Workload:
    metadata = {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1"}, "annotations": {"b": "2\n3"}}
    return PodAdapter().project({"metadata": metadata, "spec": {"containers": [{"name": "c", **container}], **fields}})


def facts(workload: Workload, objects: dict[str, Any] | None = None) -> Facts:
    units = {unit.name: unit for unit in workload.units}
    return Facts(workload, Materials(objects=objects or {}), ("192.0.2.9", "fd00::9"), 4000, 8 << 30, units)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"), ("x$(A)y$(B)", "x1y2"), ("$$(A)", "$(A)"), ("$$$(A)", "$1"), ("$(NO)", "$(NO)"), ("$A", "$A"),
        ("$", "$"), ("$$", "$"), ("$(A", "$(A"), ("$()", "$()"), ("", ""),
        ("$(echo $(A))", "$(echo $(A))"), ("$(NO$(A)", "$(NO$(A)"), ("$a$(A)", "$a1"), ("$(A)$(", "1$("), ("$($$A)", "$($$A)"),
        ("$(A)$", "1$"), ("$((A)", "$((A)"),
    ],
)  # fmt: skip
def test_expansion(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expanded


def test_doubling_is_refused_long_before_memory_is_full() -> None:
    doubling = [{"name": "A0", "value": "x" * 64}, *({"name": f"A{n + 1}", "value": f"$(A{n})" * 2} for n in range(24))]
    workload = pod({"env": doubling})
    with pytest.raises(RuntimeFailure, match="more than 128 KiB"):
        environment(workload.units[0], (), facts(workload))
    values = {"A": "x" * (100 << 10)}
    with pytest.raises(RuntimeFailure, match="longer than 6 MiB"):
        command_line({"command": ["$(A)"] * 1000}, (), (), values)
    many = pod(
        {"env": [{"name": "A", "value": values["A"]}, *({"name": f"B{n}", "value": "$(A)"} for n in range(1000))]}
    )
    with pytest.raises(RuntimeFailure, match="longer than 6 MiB"):
        environment(many.units[0], (), facts(many))


@given(st.text(alphabet="$()A", max_size=12))
def test_expansion_of_any_text_ends(text: str) -> None:
    expand(text, {"A": "$(A)"})


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({}, ["e", "c"]),
        ({"args": ["x"]}, ["e", "x"]),
        ({"command": ["y"]}, ["y"]),
        ({"command": ["y"], "args": ["$(V)"]}, ["y", "value"]),
    ],
)
def test_command_line(recipe: dict[str, Any], expected: list[str]) -> None:
    assert command_line(recipe, ["e"], ["c"], {"V": "value"}) == expected


@pytest.mark.parametrize(
    ("origin", "value"),
    [
        ({"fieldRef": {"fieldPath": "metadata.namespace"}}, "n"),
        ({"fieldRef": {"fieldPath": "metadata.uid"}}, "u"),
        ({"fieldRef": {"fieldPath": "metadata.annotations['b']"}}, "2\n3"),
        ({"fieldRef": {"fieldPath": "metadata.labels['absent']"}}, ""),
        ({"fieldRef": {"fieldPath": "status.podIP"}}, "192.0.2.9"),
        ({"fieldRef": {"fieldPath": "status.podIPs"}}, "192.0.2.9,fd00::9"),
        ({"fieldRef": {"fieldPath": "spec.serviceAccountName"}}, "default"),
        ({"resourceFieldRef": {"resource": "limits.cpu"}}, "4"),
        ({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}, "4000"),
        ({"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}}, "2"),
        ({"resourceFieldRef": {"resource": "requests.cpu"}}, "1"),
    ],
)
def test_values_from_elsewhere(origin: dict[str, Any], value: str) -> None:
    container = {
        "env": [{"name": "X", "valueFrom": origin}],
        "resources": {"requests": {"memory": "1025Ki", "cpu": "250m"}},
    }
    workload = pod(container)
    assert environment(workload.units[0], (), facts(workload))["X"] == value


@pytest.mark.parametrize(
    "origin",
    [
        {"fieldRef": {"fieldPath": "metadata.nothing"}},
        {"resourceFieldRef": {"resource": "limits.gpu"}},
        {"configMapKeyRef": {"name": "m", "key": "absent"}},
        {"configMapKeyRef": {"name": "absent", "key": "k"}},
        {"secretKeyRef": {"name": "broken", "key": "k"}},
        {"unknownRef": {}},
    ],
)
def test_missing_values_are_refused(origin: dict[str, Any]) -> None:
    workload = pod({"env": [{"name": "X", "valueFrom": origin}]})
    objects = {"configmaps/m": {"data": {"k": "v"}}, "secrets/broken": {"data": {"k": "%%%a"}}}
    with pytest.raises(RuntimeFailure) as caught:
        environment(workload.units[0], (), facts(workload, objects))
    assert caught.value.reason is RuntimeReason.CREATE_CONFIG


def test_the_environments_order() -> None:
    objects = {
        "configmaps/m": {"data": {"A": "map", "B": "map"}},
        "secrets/s": {"data": {"B": base64.b64encode(b"s").decode()}},
    }
    from_all = [
        {"configMapRef": {"name": "m"}},
        {"secretRef": {"name": "s"}},
        {"configMapRef": {"name": "no", "optional": True}},
    ]
    workload = pod({"envFrom": from_all, "env": [{"name": "A", "value": "own"}, {"name": "E"}]})
    found = environment(workload.units[0], ("A=image", "C=image"), facts(workload, objects))
    assert (found["A"], found["B"], found["C"], found["E"]) == ("own", "s", "image", "")
    assert found["PATH"]
    assert found["HOSTNAME"] == "p"


def test_resource_of_another_container() -> None:
    workload = pod({"resources": {"limits": {"memory": "64Mi"}}})
    found = resource_value(workload.units[0], {"containerName": "c", "resource": "limits.memory"}, facts(workload))
    assert found == str(64 << 20)


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\napps:x:1001:\nextra:x:1002:app,other\n")
    return tmp_path


@pytest.mark.parametrize(
    ("image_user", "security", "pod_security", "expected"),
    [
        ("", {}, {}, users.User(0, 0, (), "/root")),
        ("app", {}, {}, users.User(1000, 1001, (1002,), "/home/app")),
        ("1000", {}, {}, users.User(1000, 1001, (1002,), "/home/app")),
        ("app:extra", {}, {}, users.User(1000, 1002, (), "/home/app")),
        ("77:88", {}, {}, users.User(77, 88, (), "/")),
        ("app", {"runAsUser": 0}, {}, users.User(0, 0, (), "/root")),
        ("", {}, {"runAsUser": 1000, "runAsGroup": 5, "fsGroup": 9}, users.User(1000, 5, (9, 1002), "/home/app")),
        ("", {"runAsUser": 7}, {"runAsUser": 1000}, users.User(7, 0, (), "/")),
    ],
)
def test_users(
    rootfs: Path, image_user: str, security: dict[str, Any], pod_security: dict[str, Any], expected: users.User
) -> None:
    assert users.resolve(image_user, security, pod_security, rootfs) == expected


def test_users_that_cannot_be(rootfs: Path) -> None:
    for image_user, security in (("nobody", {}), ("app:nobody", {}), ("", {"runAsNonRoot": True})):
        with pytest.raises(RuntimeFailure):
            users.resolve(image_user, security, {}, rootfs)


@pytest.mark.parametrize("number", ["2147483648", "4294967295", "4294967296", str(2**64), "-1", "9" * 40])
def test_a_number_that_the_kernel_takes_for_another_is_refused(rootfs: Path, number: str) -> None:
    """4294967295 is -1 to setuid(2): nothing changes, and whoever is not to run as root does."""
    asked: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        (number, {}, {}),
        ("", {"runAsUser": int(number), "runAsNonRoot": True}, {}),
        (f"app:{number}", {}, {}),
        ("app", {"runAsUser": 1, "runAsGroup": int(number)}, {}),
        ("app", {}, {"fsGroup": int(number)}),
        ("app", {}, {"supplementalGroups": [int(number)]}),
    ]
    for image_user, security, pod_security in asked:
        with pytest.raises(RuntimeFailure) as caught:
            users.resolve(image_user, security, pod_security, rootfs)
        assert caught.value.reason is RuntimeReason.CREATE_CONFIG


def test_account_files_do_not_lead_out_of_the_image(rootfs: Path) -> None:
    (rootfs / "etc/passwd").unlink()
    (rootfs / "etc/passwd").symlink_to("/etc/passwd")
    with pytest.raises(RuntimeFailure):
        users.resolve("root", {}, {}, rootfs)


def test_capabilities_by_default_added_dropped_and_all() -> None:
    everything = frozenset(capabilities.ALL)
    assert set(capabilities.granted({}, everything)) == set(capabilities.DEFAULT)
    changed = {"capabilities": {"drop": ["ALL"], "add": ["net_admin", "CAP_CHOWN"]}}
    assert capabilities.granted(changed, everything) == ("CAP_CHOWN", "CAP_NET_ADMIN")
    assert capabilities.granted({"privileged": True}, everything) == capabilities.ALL
    assert capabilities.granted({"capabilities": {"add": ["ALL"]}}, frozenset({"CAP_KILL"})) == ("CAP_KILL",)
    for wrong in ("FLY", "SYS_BOOT"):
        with pytest.raises(RuntimeFailure, match=wrong):
            capabilities.granted({"capabilities": {"add": [wrong]}}, frozenset({"CAP_KILL"}))


def test_the_document_says_what_the_container_asks_for() -> None:
    container = spec.Container(
        args=["/bin/x"], environment={"A": "b"}, cgroup="/isoplane/t/u/c.0", hostname="h", netns="/run/netns/n",
        user=users.User(5, 6, (7,)), mounts=[spec.Mount("/src", "/dst", True)], cpu_request=250, cpu_limit=500,
        memory_limit=1 << 20, pids_limit=9, capabilities=("CAP_KILL",), security={"readOnlyRootFilesystem": True},
    )  # fmt: skip
    document = spec.document(container)
    assert document["root"] == {"path": "rootfs", "readonly": True}
    process = document["process"]
    assert process["capabilities"] == {"bounding": ["CAP_KILL"], "effective": [], "permitted": []}
    assert process["user"] == {"uid": 5, "gid": 6, "additionalGids": [7]}
    assert "HOME=/" in process["env"]
    resources = document["linux"]["resources"]
    assert resources["cpu"] == {"shares": 256, "period": 100000, "quota": 50000}
    assert (resources["memory"], resources["pids"]) == ({"limit": 1 << 20}, {"limit": 9})
    kinds = {n["type"]: n.get("path") for n in document["linux"]["namespaces"]}
    assert kinds == {"mount": None, "uts": None, "pid": None, "ipc": None, "network": "/run/netns/n"}
    assert document["mounts"][-1]["options"] == ["rbind", "rprivate", "ro"]


def test_privileges_lift_the_masks() -> None:
    container = spec.Container(
        args=["x"], environment={}, cgroup="/c", hostname="h", netns="", security={"privileged": True}
    )
    linux = spec.document(container)["linux"]
    assert "maskedPaths" not in linux
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert not any(n["type"] == "network" for n in linux["namespaces"])


@pytest.mark.parametrize("path", ["", "/abs", "../up", "a/../../b"])
def test_projected_paths_stay_inside(tmp_path: Path, path: str) -> None:
    item = {"key": "k", "path": path}
    workload = pod({}, volumes=[{"name": "v", "configMap": {"name": "m", "items": [item]}}])
    with pytest.raises(RuntimeFailure, match="relative path"):
        volumes.materialise(tmp_path / "volumes", facts(workload, {"configmaps/m": {"data": {"k": "v"}}}))


def test_volumes_that_cannot_be(tmp_path: Path) -> None:
    for volume in (
        {"name": "v", "persistentVolumeClaim": {"claimName": "x"}},
        {"name": "../v", "emptyDir": {}},
        {"name": "v", "hostPath": {"path": str(tmp_path / "none"), "type": "Directory"}},
        {"name": "v", "hostPath": {"path": "relative"}},
        {"name": "v", "secret": {"secretName": "none"}},
        {"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
    ):
        with pytest.raises(RuntimeFailure) as caught:
            volumes.materialise(tmp_path / "volumes", facts(pod({}, volumes=[volume])))
        assert caught.value.reason is RuntimeReason.CREATE_CONFIG


@pytest.mark.parametrize("sub", ["../x", "/x", "a/../../b"])
def test_sub_paths_do_not_climb(tmp_path: Path, sub: str) -> None:
    mount = {"name": "v", "mountPath": "/v", "subPath": sub}
    workload = pod({"volumeMounts": [mount]}, volumes=[{"name": "v", "emptyDir": {}}])
    with pytest.raises(RuntimeFailure, match="relative path"):
        volumes.mounts_of(workload.units[0], tmp_path, facts(workload), {})


@pytest.mark.parametrize("sub", ["out", "out/passwd", "in/out"])
def test_sub_paths_do_not_follow_links(tmp_path: Path, sub: str) -> None:
    (tmp_path / "v/in").mkdir(parents=True)
    for where in ("v/out", "v/in/out"):
        (tmp_path / where).symlink_to("/etc")
    mount = spec.Mount(str(tmp_path / "v"), "/v", sub_path=sub, written_by_tenant=True)
    with pytest.raises(RuntimeFailure, match=r"volume 'v': subPath .* leads out of the volume"):
        volumes.bind_sub_paths([mount], tmp_path / "mounts")


def test_a_sub_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    with pytest.raises(RuntimeFailure, match=r"volume 'v' has no 'key'"):
        volumes.bind_sub_paths([spec.Mount(str(tmp_path / "v"), "/v", sub_path="key")], tmp_path / "mounts")


def test_mounts_come_outer_first(tmp_path: Path) -> None:
    mounts = [{"name": "v", "mountPath": path} for path in ("/a/b/c", "/a", "/a/b")]
    workload = pod({"volumeMounts": mounts}, volumes=[{"name": "v", "emptyDir": {}}])
    found = volumes.mounts_of(workload.units[0], tmp_path, facts(workload), {})
    assert [mount.target for mount in found] == ["/a", "/a/b", "/a/b/c"]


def test_refreshing_a_projected_volume_replaces_its_files(tmp_path: Path) -> None:
    workload = pod({}, volumes=[{"name": "v", "configMap": {"name": "m"}}])
    for value in ("one", "two"):
        volumes.materialise(tmp_path, facts(workload, {"configmaps/m": {"data": {"k": value}}}))
        assert (tmp_path / "v/k").read_text() == value


def test_files_change_all_in_one_step_and_keep_their_modes(tmp_path: Path) -> None:
    items = [{"key": "a", "path": "a"}, {"key": "b", "path": "deep/b", "mode": 0o400}]
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    workload = pod(
        {},
        volumes=[
            {"name": "m", "configMap": {"name": "m", "items": items, "defaultMode": 0o640}},
            {"name": "late", "configMap": {"name": "late", "optional": True}},
            {"name": "d", "downwardAPI": {"items": [labels]}},
        ],
    )
    volumes.materialise(tmp_path, facts(workload, {"configmaps/m": {"data": {"a": "1", "b": "1"}}}))
    first = os.readlink(tmp_path / "m/..data")
    held = os.open(tmp_path / "m/a", os.O_RDONLY)
    assert sorted(os.listdir(tmp_path / "m")) == sorted([first, "..data", "a", "deep"])
    assert not (tmp_path / "late/k").exists()

    volumes.refresh(tmp_path, facts(workload, {"configmaps/m": {"data": {"a": "1", "b": "1"}}}))
    assert os.readlink(tmp_path / "m/..data") == first, "nothing changed, so nothing is written"

    objects = {"configmaps/m": {"data": {"a": "2", "b": "2"}}, "configmaps/late": {"data": {"k": "v"}}}
    relabelled = dataclasses.replace(workload, labels={"a": "new"})
    volumes.refresh(tmp_path, facts(relabelled, objects))
    second = os.readlink(tmp_path / "m/..data")
    assert sorted(os.listdir(tmp_path / "m")) == sorted([second, "..data", "a", "deep"])
    assert [(tmp_path / "m" / name).read_text() for name in ("a", "deep/b")] == ["2", "2"]
    assert [(tmp_path / "m" / name).stat().st_mode & 0o777 for name in ("a", "deep/b")] == [0o640, 0o400]
    assert (tmp_path / "late/k").read_text() == "v"
    assert (tmp_path / "d/labels").read_text() == 'a="new"'
    assert os.read(held, 9) == b"1", "who opened the old file keeps it"
    os.close(held)


def test_a_volume_whose_object_is_gone_keeps_its_files_and_holds_up_no_other(tmp_path: Path) -> None:
    both = [{"name": name, "configMap": {"name": name}} for name in ("gone", "here")]
    workload = pod({}, volumes=both)
    old = {f"configmaps/{name}": {"data": {"k": "1", "extra": "1"}} for name in ("gone", "here")}
    volumes.materialise(tmp_path, facts(workload, old))
    with pytest.raises(RuntimeFailure, match="gone"):
        volumes.refresh(tmp_path, facts(workload, {"configmaps/here": {"data": {"k": "2"}}}))
    assert (tmp_path / "gone/k").read_text() == "1"
    assert (tmp_path / "here/k").read_text() == "2"
    assert not (tmp_path / "here/extra").is_symlink()


@pytest.mark.parametrize("step", ["_write", "_point", "_show", "_sweep"])
def test_a_crash_between_two_steps_shows_one_whole_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    def shown() -> list[bytes]:
        return [(tmp_path / name).read_bytes() for name in ("a", "b")]

    projected.publish(tmp_path, {"a": (b"1", 0o644), "b": (b"1", 0o644)}, lambda: None)
    new = {"a": (b"2", 0o644), "b": (b"2", 0o644), "c": (b"2", 0o644)}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(projected, step, stop)
        projected.publish(tmp_path, new, lambda: None)
    assert shown() in ([b"1", b"1"], [b"2", b"2"])
    projected.publish(tmp_path, new, lambda: None)
    assert shown() == [b"2", b"2"]
    assert len(os.listdir(tmp_path)) == 5


def test_files_of_an_earlier_version_give_way(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/a").write_text("old")
    (tmp_path / "plain").write_text("old")
    projected.publish(tmp_path, {"dir/a": (b"new", 0o644), "plain": (b"new", 0o644)}, lambda: None)
    assert (tmp_path / "dir/a").read_text() == (tmp_path / "plain").read_text() == "new"


def test_paths_in_each_others_way_are_a_shown_reason(tmp_path: Path) -> None:
    items = [{"key": "k", "path": "a"}, {"key": "k", "path": "a/b"}]
    workload = pod({}, volumes=[{"name": "v", "configMap": {"name": "m", "items": items}}])
    with pytest.raises(RuntimeFailure, match="volume 'v'"):
        volumes.materialise(tmp_path, facts(workload, {"configmaps/m": {"data": {"k": "v"}}}))


def test_hooks_are_filled_in() -> None:
    recipe = {
        "ports": [{"name": "web", "containerPort": 80}],
        "lifecycle": {"preStop": {"httpGet": {"path": "/", "port": "web"}}},
    }
    assert hooks.declared(recipe, "preStop", "192.0.2.9") == {
        "httpGet": {"path": "/", "port": 80, "address": "192.0.2.9"}
    }
    assert hooks.declared(recipe, "postStart", "") is None


async def test_a_hook_that_is_not_answered_fails() -> None:
    async def never(command: Any, timeout: float) -> Any:
        raise AssertionError("not asked for")

    with pytest.raises(hooks.HookFailure):
        await hooks.run({"httpGet": {"host": "127.0.0.1", "port": 1, "path": "/"}}, never)


@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGQUIT", 3), ("", 15), ("nonsense", 15), ("SIGRTMIN+3", 37)],
)
def test_signal_names(name: str, number: int) -> None:
    assert processes.signal_number(name) == number


@pytest.mark.parametrize("user", ["9" * 5000, "1:" + "9" * 5000, "²", "١", "no\0body", "-1", "1" * 11, "a/../b"])
def test_an_image_user_that_is_none_has_a_shown_reason(user: str, rootfs: Path) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        users.resolve(user, {}, {}, rootfs)
    assert caught.value.reason is RuntimeReason.CREATE_CONFIG
    assert len(caught.value.message) < 200


def test_account_files_that_are_no_files_name_nobody(tmp_path: Path) -> None:
    (tmp_path / "etc/passwd").mkdir(parents=True)
    (tmp_path / "etc/group").symlink_to("/etc/group")
    assert users.resolve("5:6", {}, {}, tmp_path) == users.User(5, 6)
    with pytest.raises(RuntimeFailure):
        users.resolve("0:root", {}, {}, tmp_path)
