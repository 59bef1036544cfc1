"""What a server refuses: no token, foreign names, ways out of the folder, too much, HTML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from phantom_server import ADDRESS, PROMPT, Gate, Serve, asked, drawn

from medgen.access import Access
from medgen.errors import BadInput
from medgen.serve.limits import BODY_BYTES, Limits

TOKEN = "correct-horse-battery"
NOWHERE = "20200101-000000-000000-00000000"
HOSTILE = '<img src=x onerror=alert(1)>"><script>alert(2)</script> cardiomegaly, chest X-ray'
CLOSED = [
    ("GET", "/runs"),
    ("POST", "/runs"),
    ("GET", f"/runs/{NOWHERE}"),
    ("DELETE", f"/runs/{NOWHERE}"),
    ("GET", f"/runs/{NOWHERE}/events"),
    ("GET", f"/runs/{NOWHERE}/trace"),
    ("GET", f"/runs/{NOWHERE}/images/image.png"),
    ("POST", "/ratings"),
    ("GET", "/metrics"),
]
WAYS_OUT = [
    "/runs/..%2f..%2fetc%2fpasswd",
    "/runs/%2e%2e/%2e%2e/etc/passwd",
    "/runs/%252e%252e%252fpasswd",
    "/runs/{run}/images/..%2frequest.json",
    "/runs/{run}/images/%2e%2e%2frequest.json",
    "/runs/{run}/images/..%5c..%5crequest.json",
    "/runs/{run}/images/request.json",
    "/runs/{run}/images/checkpoints.sqlite",
    "/runs/{run}/images/%2fetc%2fpasswd",
    "/runs/{run}/images/image.png%00",
    "/runs/{run}/images/link.png",
    "/runs/{run}%2f../images/image.png",
    "/docs-files/..%2f..%2f..%2fetc%2fpasswd",
]


def refused(answer: Any, status: int, says: str) -> None:
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"] and "\n" not in answer.json()["detail"]


@pytest.fixture(scope="module")
def run(client: TestClient) -> str:
    """A finished run on the shared server, with a link in it that leads out."""
    run_id: str = drawn(client)["run_id"]
    folder = client.app.state.jobs.runs / run_id  # type: ignore[attr-defined]
    secret = folder.parents[1] / "secret.png"
    secret.write_bytes(b"secret")
    (folder / "link.png").symlink_to(secret)
    return run_id


@pytest.mark.parametrize(
    ("host", "token", "says"),
    [
        ("0.0.0.0", None, "--token"),
        ("192.0.2.1", "", "--token"),
        ("::", "short", "16 or more"),
        ("127.0.0.1", "", "empty"),
    ],
)
def test_other_machines_are_let_in_with_a_good_token_alone(
    host: str, token: str | None, says: str
) -> None:
    with pytest.raises(BadInput, match=says) as raised:
        Access(host, token)
    assert TOKEN not in repr(Access("0.0.0.0", TOKEN)) and "\n" not in str(raised.value)


def test_nothing_but_health_and_documentation_opens_without_the_token(serve: Serve) -> None:
    with serve(access=Access("0.0.0.0", TOKEN)) as client:
        for method, path in CLOSED:
            for shown in (None, "Bearer wrong", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x"):
                headers = {} if shown is None else {"Authorization": shown}
                answer = client.request(method, path, headers=headers)
                refused(answer, 401, "token")
                assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/health", "/openapi.json", "/docs"):
            assert client.get(path).status_code == 200
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        assert client.get("/runs").status_code == 200
        assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil", ""])
def test_no_web_page_reaches_a_local_server_under_its_own_name(
    client: TestClient, host: str
) -> None:
    assert client.get("/runs", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000"])
def test_this_machines_names_are_known(client: TestClient, host: str) -> None:
    assert client.get("/runs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("way", WAYS_OUT)
def test_no_address_leads_out_of_the_runs(client: TestClient, run: str, way: str) -> None:
    answer = client.get(way.format(run=run))
    assert answer.status_code in (404, 422), way
    for inside in ("root:", "run_id", "SQLite", "secret"):
        assert inside not in answer.text


def test_every_answer_forbids_sniffing_framing_and_scripts(client: TestClient, run: str) -> None:
    for path in ("/runs", f"/runs/{run}/images/image.png", "/nowhere", f"/runs/{run}/trace"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b'{"prompt": "' + b"a" * BODY_BYTES + b'"}', 413, "bytes"),
        (b"[" * 60_000, 400, "body"),
        (b'{"prompt": ' * 3_000, 400, "body"),
        (b'{"prompt": "cardiomegaly"', 400, "no JSON"),
        (b"\xff\xfe\x00", 400, "body"),
        (b"[]", 422, "object"),
        (b'{"prompt": "\\ud800, chest X-ray"}', 422, "unicode"),
        (b'{"prompt": "cardiomegaly \\u0000, chest X-ray"}', 422, "control character"),
        (b'{"prompt": "heart", "seconds": NaN}', 422, "seconds"),
        (b'{"prompt": "heart", "seed": ' + b"9" * 5_000 + b"}", 400, "body"),
        (b'{"prompt": "heart", "seed": 1e400}', 422, "seed"),
        (b'{"prompt": "heart", "out": "/etc"}', 422, "out"),
        (b'{"prompt": {"a": 1}}', 422, "prompt"),
        (b'{"prompt": ""}', 422, "prompt"),
        (b'{"prompt": "asdf qwer zxcv"}', 422, "nothing understood"),
        (b'{"prompt": "breast with tumor, MRI"}', 422, "can be planned but not drawn"),
    ],
)
def test_hostile_bodies_are_refused_in_one_line(
    client: TestClient, run: str, body: bytes, status: int, says: str
) -> None:
    before = client.get("/runs?limit=200").json()
    headers = {"Content-Type": "application/json"}
    refused(client.post("/runs", content=body, headers=headers), status, says)
    assert client.get("/runs?limit=200").json() == before


def test_bodies_without_a_length_are_weighed_too(client: TestClient) -> None:
    pieces = (b" " * 10_000 for _ in range(20))
    headers = {"Content-Type": "application/json"}
    assert client.post("/runs", content=pieces, headers=headers).status_code == 413


def test_a_form_of_another_page_is_no_request(client: TestClient) -> None:
    body = json.dumps({"prompt": PROMPT})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = client.post("/runs", content=body, headers={"Content-Type": kind})
        refused(answer, 422, "application/json")


@pytest.mark.parametrize(
    ("asked_for", "says"),
    [
        ({"images": 9}, "images is 9: this server allows 8"),
        ({"rounds": 9}, "rounds is 9"),
        ({"candidates": 9}, "candidates is 9"),
        ({"steps": 101}, "steps is 101"),
        ({"prompt": "cardiomegaly " * 2_000}, "prompt"),
    ],
)
def test_a_run_over_the_limits_is_refused(
    client: TestClient, asked_for: dict[str, Any], says: str
) -> None:
    refused(client.post("/runs", json={"prompt": PROMPT, **asked_for}), 422, says)


def test_a_full_queue_and_too_many_streams_are_refused(serve: Serve, tmp_path: Path) -> None:
    gate = Gate()
    with serve(generator=gate, limits=Limits(queue=2, streams=0)) as client:
        gate.open.clear()
        first = asked(client)
        assert gate.reached.wait(60)
        for seed in (1, 2):
            asked(client, seed=seed)
        answer = client.post("/runs", json={"prompt": PROMPT})
        refused(answer, 429, "2 runs wait already")
        assert answer.headers["retry-after"]
        refused(client.get(f"/runs/{first}/events"), 429, "streams are open")
        assert len([one for one in (tmp_path / "runs").iterdir() if one.is_dir()]) == 3
        for one in client.get("/runs").json()["runs"]:
            client.delete(f"/runs/{one['run_id']}")
        gate.open.set()


def test_a_client_that_asks_too_often_has_to_wait(serve: Serve) -> None:
    with serve(limits=Limits(rate=5)) as client:
        assert [client.get("/runs").status_code for _ in range(7)] == [200] * 5 + [429] * 2
        answer = client.get("/health")
        refused(answer, 429, "more than 5 requests in a minute")
        assert answer.headers["retry-after"] == "60"


def test_guesses_at_the_token_are_counted_too(serve: Serve) -> None:
    with serve(limits=Limits(rate=5), access=Access("0.0.0.0", TOKEN)) as client:
        assert [client.get("/runs").status_code for _ in range(6)] == [401] * 5 + [429]


def test_pages_of_other_origins_read_nothing_unless_named(serve: Serve) -> None:
    preflight = {"Access-Control-Request-Method": "POST"}
    with serve(origins=["https://lab.example"]) as client:
        for origin, allowed in (("https://lab.example", True), ("https://evil.example", False)):
            asked_for = client.options("/runs", headers={"Origin": origin, **preflight})
            assert (asked_for.headers.get("access-control-allow-origin") == origin) is allowed


def test_a_second_server_keeps_off_a_folder_that_is_taken(serve: Serve) -> None:
    with serve(), pytest.raises(BadInput, match="another medgen serve"), serve():
        pass


def test_hostile_words_stay_words(client: TestClient) -> None:
    run = drawn(client, prompt=HOSTILE)
    answer = client.get(f"/runs/{run['run_id']}")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["prompt"] == HOSTILE
    page = client.get(f"/runs/{run['run_id']}/trace?format=html")
    assert "<script>" not in page.text and "onerror=alert(1)>" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert ADDRESS not in page.text
