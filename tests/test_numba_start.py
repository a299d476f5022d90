"""Numba starts without scipy.linalg, and has it where it is used."""

import subprocess
import sys

CODE = """
import sys
import cep.engine.kernels.nfa
import numba.np.arraymath
assert "scipy.linalg" not in sys.modules
import numba, numpy
product = numba.njit(lambda a: a @ a)(numpy.array([[1.0, 2.0], [3.0, 4.0]]))
assert product.tolist() == [[7.0, 10.0], [15.0, 22.0]]
assert "scipy.linalg" in sys.modules
"""


def test_scipy_is_imported_only_by_what_uses_it():
    subprocess.run([sys.executable, "-c", CODE], check=True)
