"""Every option of every schema has a rule, and refuses nonsense."""

from __future__ import annotations

import dataclasses
import re

import pytest

from gp.config import TrainConfig, load_config
from gp.config.fitting import fit
from gp.config.option import RULE
from gp.config.plus import PlusConfig
from gp.config.pretrain import PretrainConfig
from gp.config.pretrain_cards import CardsPretrainConfig
from gp.config.scoring import ScoreConfig
from gp.config.table import options_of, sections_of
from gp.data.building import BuildConfig
from gp.types import ANCHORS, BUDGET_SCOPES, PruneOptions

NONSENSE = ("{a: {b: {c: 1}}}", "[[[1]]]", "''", "[.nan]", ".inf", "-7", "[]")


TEXT = (str, str | None, int | str)


# names in trainer.extra are held against lightning.Trainer, which reading a config does not wait for
SENSE = {
    ("prune.anchors", "[]"),
    ("eval.thresholds", "[]"),
    ("eval.methods", NONSENSE[0]),
    ("trainer.extra", NONSENSE[0]),
}


@pytest.mark.parametrize("one", list(options_of(TrainConfig)), ids=lambda one: one.key)
def test_nonsense_for_any_option_is_refused(minimal, one):
    for given in NONSENSE:
        if (one.key, given) in SENSE or (given == "-7" and one.hint in TEXT and not one.rule.choices):
            continue
        with pytest.raises(ValueError, match=rf"^(command line: )?{re.escape(one.key)}"):
            load_config(minimal, [f"{one.key}={given}"])


SCHEMAS = (TrainConfig, PlusConfig, PretrainConfig, CardsPretrainConfig, BuildConfig, ScoreConfig)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_option_has_a_rule_and_one_line(schema):
    for part in sections_of(schema).values():
        without = {one.name for one in dataclasses.fields(part) if RULE not in one.metadata}
        assert without <= sections_of(schema).keys()
    for one in options_of(schema):
        assert one.rule.help and "\n" not in one.rule.help and len(one.rule.help) < 120


def test_the_section_prune_takes_what_pruning_takes():
    rules = {one.key: one for one in options_of(TrainConfig)}
    assert rules["prune.anchors"].rule.choices == ANCHORS and rules["prune.budget_scope"].rule.choices == BUDGET_SCOPES
    for name in ("threshold", "max_keep_ratio", "fixed_keep_ratio", "min_kept"):
        for value in (-1, -0.1, 0, 0.5, 1, 1.1):
            try:
                PruneOptions(**{name: value})
                taken = True
            except ValueError:
                taken = False
            one = rules[f"prune.{name}"]
            try:
                fit(value, one.hint, one.rule, name)
                accepted = True
            except ValueError:
                accepted = False
            assert accepted == taken, (name, value)
