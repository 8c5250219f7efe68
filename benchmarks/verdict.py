"""How right the verdict is: short runs whose originals are known, what the rule says of each, and what is true.

    python benchmarks/verdict.py runs FACES --truth-faces FACES [--domains D,...] [--recipes swinir,...] [--seeds N]
                                 [--photos N] [--scored N] [--pack PACK] [--out DIR]
                                 [targets.KEY=VALUE] [finetune.KEY=VALUE]
    python benchmarks/verdict.py table [--out DIR] [--verdict RECIPE] [verdict.KEY=VALUE]

`runs` makes, for every domain, finetune recipe and seed, targets of a few damaged faces, fine-tunes shortly on them, and
keeps two things of the weights along the way and of those halfway back to the start: the evidence on the photos that
were adapted on, and how near the originals the restored images of other people are. `table` then asks the rule of each,
and prints called against true; --fit prints weights and threshold that suit these runs, each domain called by a rule
that was fitted to the others. Runs that are there are not made again.

A model is better in truth where by none of PSNR, perceptual distance and identity it is worse beyond the 95 % interval
and by one it is better; worse where it is worse by any.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from domain import degrade_faces, with_overrides
from torch import Tensor

from adapt.build import load_distance, load_judges, load_recogniser, load_restorer
from adapt.commands.finetune import finetune, set_up_finetune
from adapt.commands.generate_targets import generate_targets
from adapt.commands.run import split_overrides
from adapt.commands.run_verdict import judge_images
from adapt.disk import write_json
from adapt.evaluation.metrics import psnr
from adapt.faces.measures import identity_distance
from adapt.intervals import Interval, mean_interval
from adapt.packs.pack import load_pack
from adapt.photos.files import read_image
from adapt.photos.folder import PhotoFile, find_photos
from adapt.restorers.base import Restorer
from adapt.settings import VerdictSettings
from adapt.settings.recipe import load_recipe
from adapt.verdict.decision import Numbers, decide

DOMAINS: Final = (
    "phone-night-moderate,phone-night-severe,phone-zoom-moderate,phone-zoom-severe,messenger-moderate,messenger-severe,"
    "video-call-moderate,video-call-severe,old-scan-moderate,old-scan-severe,web,old-photo,video-still,newspaper,"
    "camera-noise-moderate,camera-noise-severe,camera-noise-starlight,dtbfr-4x-moderate,dtbfr-4x-severe,"
    "dtbfr-8x-moderate,dtbfr-8x-severe"
)
