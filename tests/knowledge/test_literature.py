"""Literature: read by a model's answers into LightRAG, once, and found again with its file."""

from __future__ import annotations

import pytest
from filelock import FileLock, Timeout

from medgen.errors import BadInput
from medgen.knowledge.embedder import default_embedder
from medgen.knowledge.literature import Literature, text_of
from medgen.knowledge.workspace import ready_vectors


def extracting(calls: list[str]):
    """A model that answers LightRAG's extraction prompt in LightRAG's own form."""

    async def answer(prompt: str, system_prompt: str | None) -> str:
        calls.append(prompt)
        if len(calls) > 1:
            return "<|COMPLETE|>"
        return (
            "entity<|#|>Kerley lines<|#|>concept<|#|>Kerley lines are short horizontal lines at "
            "the lung periphery in interstitial edema.\n"
            "entity<|#|>Interstitial edema<|#|>concept<|#|>Interstitial edema is fluid in "
            "septa.\n"
            "relation<|#|>Kerley lines<|#|>Interstitial edema<|#|>sign<|#|>Kerley lines are a sign "
            "of interstitial edema.\n<|COMPLETE|>"
        )

    return answer


def test_text_is_read_once_and_found_with_its_file(tmp_path):
    embedder = ready_vectors(default_embedder())
    path = tmp_path / "edema.txt"
    path.write_text("Kerley lines are a sign of interstitial edema of the lung.")
    calls: list[str] = []
    literature = Literature(tmp_path / "literature", embedder, extracting(calls))
    taken = literature.take([path, tmp_path / "missing.txt"])
    assert taken.new == 1 and list(taken.failed) == [str(tmp_path / "missing.txt")]
    assert taken.entities == 2 and taken.relations == 1
    asked = len(calls)
    assert asked >= 1 and any("Kerley" in call for call in calls)
    assert literature.take([path]).new == 0 and len(calls) == asked
    text = "short horizontal lines at the edge of the lung"
    facts = literature.search(text, embedder([text])[0], 3, 0.2)
    assert "Kerley" in facts[0].text and facts[0].source == "edema.txt"
    literature.close()
    again = Literature(tmp_path / "literature", embedder)
    assert again.counts() == {"files": 1, "entities": 2, "relations": 1}
    assert again.search(text, embedder([text])[0], 3, 0.2) == facts


def test_a_model_that_fails_is_said_and_tried_again(tmp_path):
    async def fails(prompt: str, system_prompt: str | None) -> str:
        raise RuntimeError("server gone")

    path = tmp_path / "a.txt"
    path.write_text("Kerley lines.")
    literature = Literature(tmp_path / "b", ready_vectors(default_embedder()), fails)
    with pytest.raises(BadInput, match="not read"):
        literature.take([path])
    assert literature.files() == {}
    literature.close()


def test_a_second_writer_waits_for_the_first(tmp_path):
    embedder = ready_vectors(default_embedder())
    folder = tmp_path / "literature"
    first = Literature(folder, embedder, extracting([]))
    with pytest.raises(Timeout):
        FileLock(folder / ".lock", timeout=0.1).acquire()
    first.close()
    with FileLock(folder / ".lock", timeout=0.1):
        Literature(folder, embedder).close()  # reading waits for nobody


def test_pdf_text(tmp_path):
    pytest.importorskip("pypdf")
    stream = b"BT /F1 12 Tf 72 720 Td (Kerley lines in edema) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    path = tmp_path / "a.pdf"
    path.write_bytes(
        body + b"xref\n0 6\n0000000000 65535 f \n" + table
        + b"trailer << /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % len(body)
    )  # fmt: skip
    assert "Kerley lines in edema" in text_of(path)


@pytest.mark.parametrize(("name", "content"), [("a.pdf", b"no pdf"), ("a.txt", b"\xff\xfe\x00")])
def test_unreadable_files_are_one_clear_line(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        text_of(path)
    assert "\n" not in str(caught.value) and (
        str(path) in str(caught.value) or "pypdf" in str(caught.value)
    )
