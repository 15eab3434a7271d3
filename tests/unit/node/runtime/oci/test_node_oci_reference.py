"""Image names: every shape that tools write, and everything that is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.node.images import ImageInputError, sources
from isoplane.node.images.reference import Reference, default_pull_policy, parse

HEX = "a" * 64

component = st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", fullmatch=True).filter(lambda s: len(s) < 40)
domains = st.sampled_from(["docker.io", "isoplane.io", "localhost", "127.0.0.1:5000", "[::1]:5000", "r.example:1"])
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
        ("team/app", "docker.io/team/app:latest"),
        ("isoplane.io/demo/web:1", "isoplane.io/demo/web:1"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("r.example/a/b/c__d.e-f", "r.example/a/b/c__d.e-f:latest"),
        (f"a@sha256:{HEX}", f"docker.io/library/a@sha256:{HEX}"),
        (f"a:t@sha256:{HEX}", f"docker.io/library/a:t@sha256:{HEX}"),
    ],
)
def test_canonical_names(text: str, canonical: str) -> None:
    assert parse(text).canonical == canonical


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ":", "a:", "a:b:c", "A", "a//b", "/a", "a/", "a b", "a:-x", "-a", "a@", "a@sha256:12", "a@md5:" + HEX,
        "..", "../etc/passwd", "a/../b", "r.example:99999999/a", "http://a/b", "a" * 300, "é", "a:" + "t" * 129, "a\n",
    ],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        reference = parse(text)
    except ValueError:
        return
    assert parse(reference.canonical) == reference


@given(domains, st.lists(component, min_size=1, max_size=4), tags)
def test_the_canonical_name_means_the_same(domain: str, path: list[str], tag: str) -> None:
    text = f"{domain}/{'/'.join(path)}:{tag}"
    reference = parse(text)
    assert (reference.domain, reference.tag) == (domain, tag)
    assert parse(reference.canonical) == reference


def test_loopback_and_local_registries() -> None:
    assert parse("127.0.0.1:5000/a").loopback
    assert parse("localhost:5000/a").loopback
    assert parse("[::1]:5000/a").loopback
    assert not parse("127.example/a").loopback
    assert not parse("localhost.example:1/a").loopback
    assert parse("isoplane.io/demo/web:1").local
    assert not parse("isoplane.io.example/web:1").local


@pytest.mark.parametrize(
    ("text", "policy"),
    [("a", "Always"), ("a:latest", "Always"), ("a:1", "IfNotPresent"), (f"a@sha256:{HEX}", "IfNotPresent")],
)
def test_the_default_pull_policy(text: str, policy: str) -> None:
    assert default_pull_policy(text) == policy


def test_a_registry_is_asked_by_tag_or_by_digest() -> None:
    assert sources.registry(parse("r.example/a:1")).url == "docker://r.example/a:1"
    assert sources.registry(parse(f"r.example/a:1@sha256:{HEX}")).url == f"docker://r.example/a@sha256:{HEX}"
    assert sources.registry(parse("127.0.0.1:5000/a")).plain_http
    assert not sources.registry(parse("r.example/a")).plain_http
    assert sources.registry(parse("r.example/a"), ["r.example"]).plain_http


@pytest.mark.parametrize("text", ["isoplane.io/demo/x:1", "docker://isoplane.io/demo/x:1", "./none", "oci:/none:x"])
def test_what_no_source_can_be(text: str) -> None:
    with pytest.raises(ImageInputError):
        sources.recognise(text)


def test_a_reference_is_a_value() -> None:
    assert parse("a") == Reference("docker.io", "library/a", "latest", "")
