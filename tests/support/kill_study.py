"""Kill a study of real trainings and MD at random; are its records as undisturbed?

By hand, ten minutes on two cores: ``python -m tests.support.kill_study FOLDER 20``.
The trainings do not shuffle, because NequIP 0.19.1 restarts with another order.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.support import studies

OVERRIDES = ["trainer.max_epochs=12", "data.train_dataloader.shuffle=false"]


def main(folder: Path, kills: int) -> int:
    """0 if the records are the same."""
    calm, disturbed = folder / "calm", folder / "disturbed"
    slow = "training_module.optimizer.lr=0.002"
    variants = {"fast": OVERRIDES, "slow": [*OVERRIDES, slow]}
    for each in (calm, disturbed):
        studies.study_file(each, variants=variants, seeds=[1, 2])
    assert studies.run(calm, "study.yaml").returncode == 0
    studies.kill_again_and_again(
        lambda: studies.start(disturbed, "study.yaml"),
        lambda: shutil.rmtree(disturbed / "study-results"),
        kills=kills,
        longest_s=25.0,
        seed=20,
    )
    assert studies.run(disturbed, "study.yaml").returncode == 0
    found = [studies.results(each / "study-results") for each in (calm, disturbed)]
    same = found[0] == found[1]
    print(f"{len(found[0])} records, {kills} kills: {'the same' if same else 'DIFFER'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
