"""Compiled loops of the engine; each file is one concept.

Kernels are compiled by numba on first use and cached on disk, once per machine.
They take and change plain arrays and never see a Python object.
"""

from cep.numba_start import import_array_functions

import_array_functions()
