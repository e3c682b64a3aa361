"""`perceiver-rl bench encoder` measures what it says: equal functions, real memory, every case in its records."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import encoder
from benchmarks.rivals import build_rivals
from perceiver_rl.cli import app

pytest.importorskip("transformers", reason="pip install 'perceiver-rl[bench]'")


def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    monkeypatch.setattr(encoder, "SCALING", (8, 16))
    file, picture = tmp_path / "encoder.json", tmp_path / "encoder.png"
    done = []
    encoder.run(
        entities=[8, 16],
        fills=[0.25, 1.0],
        repeats=1,
        threads=torch.get_num_threads(),
        seed=0,
        device="cpu",
        slots=32,
        latents=32,
        growth=True,
        json_file=file,
        plot_file=picture,
        on_case=lambda *progress: done.append(progress),
    )
    assert done[-1] == (10, 10)
    assert picture.stat().st_size > 1000
    return json.loads(file.read_text())


def test_bench_encoder__records_every_implementation_pass_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = _run(tmp_path, monkeypatch)
    fields = {"implementation", "entities", "fill", "queries", "pass", "median_ms", "peak_mb", "batch_size", "latents"}
    assert all(fields <= record.keys() for record in records)
    assert all(record["median_ms"] > 0 and record["peak_mb"] > 0 for record in records)
    sparse = [r for r in records if (r["entities"], r["fill"], r["pass"]) == (16, 0.25, "forward_backward")]
    assert [record["implementation"] for record in sparse] == [
        "perceiver-rl",
        "perceiver-rl-packed",
        "perceiver-rl-rows",
        "perceiver-rl-transformer",
        "torch-transformer",
        "huggingface",
        "perceiver-pytorch",
    ]


def test_plan__has_a_full_batch_of_as_many_entities_beside_a_quarter_of_the_slots() -> None:
    cases = encoder.plan([64, 256], [0.25], slots=512)
    sparse, dense = (([each for each in cases if each.series == series]) for series in ("slots", "dense"))
    assert [(each.entities, each.batch_size) for each in sparse] == [(64, 8), (256, 2)]
    assert [(each.entities, each.queries, each.fill, each.batch_size) for each in dense] == [(16, 16, 1, 8), (64, 64, 1, 2)]


def test_measure__leaves_transformers_out_where_they_would_take_all_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "MAX_PAIRS", 16 * 16)
    monkeypatch.setattr(encoder, "MAX_PAIRS_SPARSE", 8 * 8)
    rivals, _ = build_rivals(4, "cpu")
    cases = encoder.plan([8, 16, 32], [0.5, 1.0], slots=1)
    records, left_out = encoder.measure(rivals, cases, latents=4, repeats=1, seed=0, device="cpu", on_case=lambda done: None)
    run = {(each.entities, each.fill) for each in records if each.implementation == "torch-transformer"}
    assert run == {(8, 0.5), (8, 1.0), (16, 1.0)}
    assert "torch-transformer at 16 entities, fill 0.5: quadratic cost" in left_out
    assert {(each.entities, each.fill) for each in records if each.implementation == "perceiver-rl"} > run


def test_bench_encoder__does_not_compare_different_functions() -> None:
    rivals, missing = build_rivals(4, "cpu")
    assert not missing
    batch = encoder.make_batch(encoder.Case(8, 0.5, 8, 2), seed=0, device="cpu")
    encoder._compare(rivals, batch)
    with torch.no_grad():
        next(rival for rival in rivals if rival.name == "huggingface").module.latents.normal_()
    with pytest.raises(AssertionError, match="huggingface differs"):
        encoder._compare(rivals, batch)


def test_peak_megabytes__counts_what_is_held_at_one_time() -> None:
    def two_at_a_time() -> None:
        for _ in range(5):
            first = torch.empty(1_000_000)
            del first
        second, third = torch.empty(1_000_000), torch.empty(1_000_000)
        del second, third

    assert encoder.peak_megabytes(two_at_a_time, "cpu") == pytest.approx(8.0, rel=0.01)


def test_slope__is_the_power_of_growth() -> None:
    assert encoder.slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--entities", "16,many"], "--entities: got 'many', expected numbers separated by commas"),
        (["--fills", "0"], "expected --entities of at least 1 and --fills above 0 and up to 1"),
    ],
)
def test_bench_encoder__says_what_is_wrong_with_its_options(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["bench", "encoder", *arguments])
    assert result.exit_code == 2
    assert message in result.output
