"""Writes a TorchScript model as ``nequip-compile --mode torchscript`` does.

The command refuses on torch >= 2.10, where the format is deprecated; NequIP's writer
and reader, which people with older torch use, still work.

Usage: python torchscript.py LAST.ckpt OUT.nequip.pth
"""

import sys

from nequip.model.inference_models.torchscript import save_torchscript_model
from nequip.model.saved_models import load_saved_model
from nequip.utils.global_state import TF32_KEY, set_global_state


def main() -> None:
    set_global_state()
    model = load_saved_model(sys.argv[1])
    metadata = {**model.metadata, TF32_KEY: 0}
    save_torchscript_model(model, metadata, sys.argv[2], "cpu")


if __name__ == "__main__":
    main()
