"""The tables of a grid, from scores made by hand."""

import json

import pytest

from evaluation.reports.ablation_files import format_ablation, write_ablation
from evaluation.reports.ablation_tables import make_tables
from evaluation.reports.ablations import Ablation, Arm, Cell, DatasetYield

VAL, TEST = "miniature val", "miniature test"
ARMS = [
    ("simple", 8, False),
    ("simple", 8, True),
    ("rich", 8, False),
    ("rich", 8, True),
    ("rich", 1, False),
    ("rich", 14, False),
]
MIOU = {
    ("simple", 8, False): (0.40, 0.42, 0.44),
    ("simple", 8, True): (0.41, 0.40, 0.45),
    ("rich", 8, False): (0.50, 0.52, 0.57),
    ("rich", 8, True): (0.53, 0.52, 0.55),
    ("rich", 1, False): (0.10, 0.12, 0.11),
    ("rich", 14, False): (0.48, 0.49, 0.50),
}


PROTOCOL = {
    "benchmark": "miniature",
    "split": "val",
    "num_images": 140,
    "class_names": ["background", "cat"],
    "background_rule": "raw",
    "threshold": 0.35,
    "preset": "",
}


def cell(arm, seed, **changes):
    prompts, size, counterfactual = arm
    miou = MIOU[arm][seed]
    fields = {
        "state": "measured",
        "scores": {VAL: miou, TEST: miou - 0.05},
        "untrained_scores": {VAL: 0.2, TEST: 0.1} if arm == ARMS[0] else {},
    }
    return Cell(
        arm=Arm(prompts=prompts, classes_per_image=size, counterfactual=counterfactual),
        seed=seed,
        run=f"runs/{prompts}-{size}-{counterfactual}-{seed}",
        **(fields | changes),
    )


def ablation(cells, seeds=(0, 1, 2)):
    return Ablation(
        profile="miniature",
        num_classes=14,
        usual=8,
        names_prompts="rich",
        seeds=seeds,
        benchmarks=(VAL, TEST),
        cells=tuple(cells),
        datasets=(
            DatasetYield(
                prompts="simple",
                seed=0,
                root="d",
                requested=160,
                written=157,
                dropped={"class-not-found": 3},
            ),
        ),
        metrics={VAL: "mIoU"},
        protocols={VAL: PROTOCOL},
        settings={},
        engine_version="0",
    )


def whole():
    return ablation(cell(arm, seed) for seed in (0, 1, 2) for arm in ARMS)


def found(table):
    return {row.labels: row for row in table.rows}


def test_prompts_stand_in_the_shape_of_table_v_beside_its_numbers():
    table = make_tables(whole())[0]
    rows = found(table)
    assert list(rows) == [
        ("simple", "off"),
        ("simple", "on"),
        ("rich", "off"),
        ("rich", "on"),
        ("untrained student", "-"),
    ]
    published = [row.published for row in table.rows]
    assert published == [(28.6,), (27.5,), (36.0,), (37.2,), ()]
    val, test = rows["rich", "off"].spreads
    assert val.values == (0.50, 0.52, 0.57)
    assert val.mean == pytest.approx(0.53)
    assert val.deviation == pytest.approx(0.0360555)
    assert test.mean == pytest.approx(0.48)


def test_names_stand_in_the_shape_of_table_vi_with_the_usual_number_last():
    table = make_tables(whole())[1]
    assert [row.labels for row in table.rows[:4]] == [
        ("1", "off"),
        ("14 (= N)", "off"),
        ("8", "off"),
        ("8", "on"),
    ]
    assert [row.published for row in table.rows[:4]] == [(7.7,), (31.4,), (38.1,), (40.2,)]


def test_the_loss_is_compared_seed_by_seed():
    table = make_tables(whole())[2]
    rows = found(table)
    assert rows["rich", "8"].spreads[0].values == pytest.approx((0.03, 0.0, -0.02))
    assert rows["rich", "8"].published == (1.2, 2.1)
    assert rows["simple", "8"].published == (-1.1,)


def test_the_text_shows_every_seed_the_mean_the_spread_and_the_protocol():
    text = format_ablation(whole())
    assert (
        "| rich | off | 50.0, 52.0, 57.0 | 53.0 (3.6) | 45.0, 47.0, 52.0 | 48.0 (3.6) | 36.0 |"
        in text
    )
    assert "| rich | 8 | +3.0, +0.0, -2.0 | +0.3 (2.5) |" in text
    assert "| untrained student | - | 20.0, 20.0, 20.0 | 20.0 (0.0) |" in text
    assert "| simple | 0 | 157 of 160 | class-not-found 3 |" in text
    assert (
        "- mIoU on miniature val: num images: 140; background rule: raw; threshold: 0.35\n" in text
    )
    assert "not measured here" in text


def test_a_cell_that_failed_is_named_and_left_out_of_the_mean():
    cells = [cell(arm, seed) for seed in (0, 1, 2) for arm in ARMS]
    changes = {"state": "failed", "error": "out of memory", "scores": {}}
    cells = [
        cell(ARMS[2], 1, **changes) if (c.seed, c.run) == (1, "runs/rich-8-False-1") else c
        for c in cells
    ]
    text = format_ablation(ablation(cells))
    assert "| rich | off | 50.0, failed, 57.0 | 53.5 (4.9) |" in text
    assert "| rich | 8 | +3.0, failed, -2.0 | +0.5 (3.5) |" in text
    assert "failed: rich, m = 8, loss off, seed 1: out of memory" in text


def test_one_seed_has_no_spread():
    text = format_ablation(ablation([cell(arm, 0) for arm in ARMS], seeds=(0,)))
    assert "| rich | off | 50.0 | 50.0 | 45.0 | 45.0 | 36.0 |" in text


def test_a_grid_of_one_kind_of_prompts_repeats_no_rows():
    cells = [cell(arm, seed) for seed in (0, 1, 2) for arm in ARMS if arm[0] == "rich"]
    assert [table.heads[0] for table in make_tables(ablation(cells))] == ["m", "prompts"]
    only_loss = [c for c in cells if c.arm.classes_per_image == 8]
    titles = [table.title for table in make_tables(ablation(only_loss))]
    assert titles[0].startswith("Prompts and the counterfactual loss")
    assert len(titles) == 2


def test_prompts_of_another_name_have_no_published_numbers():
    other = [
        c.model_copy(update={"arm": c.arm.model_copy(update={"prompts": "longer"})})
        for c in (cell(arm, 0) for arm in ARMS if arm[0] == "rich")
    ]
    grid = ablation([*(cell(arm, 0) for arm in ARMS[:2]), *other], seeds=(0,))
    tables = make_tables(grid.model_copy(update={"names_prompts": "longer"}))
    rows = found(tables[0])
    assert rows["longer", "off"].published == ()
    assert rows["simple", "off"].published == (28.6,)
    assert [row.published for row in tables[1].rows] == [()] * 5
    assert found(tables[2])["longer", "8"].published == ()


def test_ways_to_make_counterfactuals_stand_beside_one_another_without_published_numbers():
    ways = {"nothing": (40.0, 44.0), "remove": (41.0, 40.5), "inpaint": (39.5, 46.0)}
    cells = [
        Cell(
            arm=Arm(prompts=way, classes_per_image=8, counterfactual=on),
            seed=0,
            run=f"runs/{way}-{on}",
            state="measured",
            scores={VAL: scores[on] / 100, TEST: 0.0},
        )
        for way, scores in ways.items()
        for on in (False, True)
    ]
    grid = ablation(cells, seeds=(0,)).model_copy(
        update={"names_prompts": "inpaint", "benchmarks": (VAL,)}
    )
    lines = format_ablation(grid).splitlines()
    assert [line for line in lines if line.startswith(("| nothing", "| remove", "| inpaint"))] == [
        "| nothing | off | 40.0 | 40.0 |  |",
        "| nothing | on | 44.0 | 44.0 |  |",
        "| remove | off | 41.0 | 41.0 |  |",
        "| remove | on | 40.5 | 40.5 |  |",
        "| inpaint | off | 39.5 | 39.5 |  |",
        "| inpaint | on | 46.0 | 46.0 |  |",
        "| nothing | 8 | +4.0 | +4.0 |  |",
        "| remove | 8 | -0.5 | -0.5 |  |",
        "| inpaint | 8 | +6.5 | +6.5 |  |",
    ]


def test_the_written_files_hold_all_cells_and_the_tables(tmp_path):
    grid = whole()
    numbers, text = write_ablation(grid, tmp_path)
    assert Ablation.model_validate(json.loads(numbers.read_bytes())) == grid
    assert text.read_text() == format_ablation(grid)
    assert len(list(tmp_path.iterdir())) == 2
