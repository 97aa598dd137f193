"""Result lines on disk: half lines, broken lines, several files."""

from __future__ import annotations

import pytest

from gp.eval.plan import UNPRUNED, Method
from gp.eval.results import Result, append_results, drop_half_line, read_results, result_path


def result(key: str) -> Result:
    sample = (key, 3, "gqa", "q7", "a.jpg", "wo ist «x» ?", "ja")
    return Result(*sample, "nein", 2, False, 4, 2, 2.5, 2.5, 1, 1, 1, 10.0, 12, 0.1, 0.2)


def test_lines_come_back_and_half_a_line_does_not(tmp_path):
    path = result_path(tmp_path, "test", UNPRUNED)
    append_results(path, [result("a"), result("b")])
    whole = path.read_bytes()
    for end in range(1, len(whole) - whole.index(b"\n")):
        path.write_bytes(whole[:-end])
        assert list(read_results(tmp_path, "test", UNPRUNED).values()) == [result("a")]
    drop_half_line(path)
    append_results(path, [result("c")])
    assert list(read_results(tmp_path, "test", UNPRUNED)) == ["a", "c"]


def test_files_of_several_processes_are_one_row_and_others_are_not_mixed_in(tmp_path):
    method, longer = Method("random", 0.1), Method("random", 0.15)
    for rank in range(2):
        append_results(result_path(tmp_path, "test", method, rank, 2), [result(f"r{rank}")])
    append_results(result_path(tmp_path, "test", longer), [result("longer")])
    append_results(result_path(tmp_path, "my-test", method), [result("mine")])
    assert set(read_results(tmp_path, "test", method)) == {"r0", "r1"}


@pytest.mark.parametrize("line", [b"{", b'{"id": "a"}', b"[]", b'{"unknown": 1}', b"\xff"])
def test_a_broken_line_names_file_and_number(tmp_path, line):
    path = result_path(tmp_path, "test", UNPRUNED)
    append_results(path, [result("a")])
    with path.open("ab") as file:
        file.write(line + b"\n")
    append_results(path, [result("b")])
    with pytest.raises(ValueError, match=r"test-none-own\.jsonl, line 2: not a result"):
        read_results(tmp_path, "test", UNPRUNED)
