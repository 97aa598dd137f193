"""What the batches of the joint stage ask, and of which sizes they are."""

from dataclasses import dataclass

from gp.embedded.making.growing.packing import Grid

# Before and after the turn of a stage (`early_share` of its steps).
PHASES = ("joint_early", "joint_late", "final_early", "final_late", "count_early", "count_late")
PHASES_OF_STAGES = {"joint": (0, 1), "final": (2, 3), "count": (4, 5)}


@dataclass(frozen=True)
class Task:
    """What all questions of a batch ask.

    Args:
        shares: of the batches, in each of PHASES.
        setting: "single" (one image), "pair" (two pictures) or "zoom" (half-size copy and crops).
        scenes: (layout, kind, share): of the batch's scenes, what is asked about each. A pair and a zoom always ask for
            numbers, of one picture and of one card.
    """

    shares: tuple[float, ...]
    setting: str
    scenes: tuple[tuple[str, str, float], ...]


# A batch asks alike: kinds that are learned late (color_of, side, exists) drown in batches of all kinds. Two thirds of
# the late questions read a number.
TASKS = (
    Task(
        (0.12, 0.26, 0.20, 0.26, 0.20, 0.32),
        "single",
        (("color", "color", 0.5), ("conjunction", "conjunction", 0.5)),
    ),
    Task((0.03, 0.05, 0.04, 0.06, 0.04, 0.05), "single", (("color", "turns", 1.0),)),
    Task((0.16, 0.14, 0.12, 0.12, 0.05, 0.05), "single", (("color", "color_of", 1.0),)),
    Task((0.30, 0.05, 0.06, 0.08, 0.03, 0.03), "single", (("color", "side", 1.0),)),
    Task((0.12, 0.07, 0.03, 0.05, 0.10, 0.10), "single", (("mixed", "exists", 0.7), ("conjunction", "exists", 0.3))),
    Task((0.18, 0.16, 0.37, 0.22, 0.46, 0.35), "single", (("mixed", "count", 1.0),)),
    Task((0.05, 0.13, 0.08, 0.10, 0.06, 0.05), "pair", (("color", "pair", 0.7), ("conjunction", "pair", 0.3))),
    Task((0.04, 0.14, 0.10, 0.11, 0.06, 0.05), "zoom", (("color", "zoom", 0.7), ("conjunction", "zoom", 0.3))),
)


@dataclass(frozen=True)
class Size:
    """Sizes of a batch.

    Args:
        share: among the sizes of a setting.
        grids: rows and columns of each scene in visual tokens; one, or two for a pair.
        num_scenes: prompts' images per batch. num_questions: packed behind each.
    """

    share: float
    grids: tuple[Grid, ...]
    num_scenes: int
    num_questions: int


# Small scenes cost least per question, and most of what they teach holds at all sizes.
SIZES = {
    "single": (
        Size(0.30, ((8, 8),), 9, 10),
        Size(0.05, ((8, 16),), 6, 7),
        Size(0.05, ((16, 8),), 6, 7),
        Size(0.05, ((9, 14),), 6, 7),
        Size(0.11, ((12, 12),), 6, 9),
        Size(0.08, ((12, 16),), 4, 9),
        Size(0.20, ((16, 16),), 3, 12),
        Size(0.04, ((14, 18),), 3, 9),
        Size(0.04, ((20, 13),), 3, 9),
        Size(0.04, ((13, 20),), 3, 9),
        Size(0.04, ((20, 20),), 2, 12),
    ),
    "pair": (Size(0.65, ((8, 8), (8, 8)), 6, 7), Size(0.35, ((10, 8), (8, 12)), 4, 8)),
    "zoom": (Size(0.6, ((16, 16),), 5, 6), Size(0.2, ((12, 16),), 5, 6), Size(0.2, ((20, 20),), 4, 6)),
}
VALIDATION = (
    ("single", Size(1, ((8, 8),), 11, 9)),
    ("single", Size(1, ((16, 16),), 4, 12)),
    ("single", Size(1, ((20, 13),), 4, 12)),
    ("pair", Size(1, ((8, 8), (8, 8)), 6, 9)),
    ("zoom", Size(1, ((16, 16),), 5, 9)),
)


def tasks_of(setting: str) -> list[Task]:
    """Tasks of a setting."""
    return [task for task in TASKS if task.setting == setting]
