"""Compiled loops of the reader; each file is one concept.

They take the bytes of a reply and plain arrays, never a Python object, and
check each access against the bounds they are given: the bytes are hostile. A
row they do not understand entirely is left to `cep.events.codec.decode_row`,
which alone decides what is wrong with it.
"""

from cep.numba_start import import_array_functions

import_array_functions()
