"""What compiling kernels costs, and how that is kept low.

numba spends most of the time that our kernels take to compile on what they do
not need, so `KernelCompiler` and `InnerCompiler` leave it out, by the means that
numba gives to those who customise its compiler:

* An inner function is only ever part of the kernels that call it. It gets no
  machine code of its own and is optimised where it ends up, once.
* Passes for what kernels do not use (closures, generators, `with` blocks,
  `literal_unroll`) are left out. Each would go through the whole function.
* An item of an array, read or written, is one address and one access; numba
  makes a copy of the array's record for each and leaves it to LLVM to see that
  it is not needed.
* The type of ``a + b`` is looked up once for each kind of operands, not each time
  that it occurs: each look-up tries dozens of implementations, from strings to
  dates, until one fits.

What is computed is the same to the last bit.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numba import _dynfunc  # type: ignore[attr-defined]
from numba.core import cgutils, typed_passes, types, untyped_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.targetconfig import ConfigStack
from numba.np import arrayobj

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_UNUSED = {
    untyped_passes.WithLifting,
    untyped_passes.InlineClosureLikes,
    untyped_passes.RewriteDynamicRaises,
    untyped_passes.MakeFunctionToJitFunction,
    untyped_passes.InlineInlinables,
    untyped_passes.FindLiterallyCalls,
    untyped_passes.LiteralUnroll,
    untyped_passes.LiteralPropagationSubPipelinePass,
}


def digest(sources: Iterable[Path]) -> str:
    """Return what a kernel's cached code depends on: its sources and this file."""
    paths = [*sources, Path(__file__)]
    return hashlib.sha256(b"".join(p.read_bytes() for p in paths)).hexdigest()[:12]


class _Lower(Lower):
    """Lowers items of arrays without a copy of the array's record."""

    def lower_getitem(
        self, resty: Any, expr: Any, value: Any, index: Any, signature: Any
    ) -> Any:
        place = self._place(value, index, signature)
        if place is None:
            return super().lower_getitem(resty, expr, value, index, signature)
        item = arrayobj.load_item(self.context, self.builder, *place)
        return self.context.cast(self.builder, item, signature.return_type, resty)

    def lower_setitem(self, target: Any, index: Any, value: Any, signature: Any) -> Any:
        place = self._place(target, index, signature)
        if place is None:
            return super().lower_setitem(target, index, value, signature)
        array, pointer = place
        kind = self.typeof(value.name)
        item = self.loadvar(value.name)
        item = self.context.cast(self.builder, item, kind, signature.args[2])
        item = self.context.cast(self.builder, item, signature.args[2], array.dtype)
        return arrayobj.store_item(self.context, self.builder, array, item, pointer)

    def _place(self, value: Any, index: Any, signature: Any) -> Any:
        """Return the array's type and the address of an item.

        None unless it is a number at a place of which all indexes are integers.
        """
        array, at = self.typeof(value.name), signature.args[1]
        kinds = getattr(at, "types", (at,))  # a tuple's, else its own
        if (
            type(array) is not types.Array
            or not isinstance(array.dtype, types.Number | types.Boolean)
            or len(kinds) != array.ndim
            or not all(isinstance(kind, types.Integer) for kind in kinds)
            or self.context.enable_boundscheck
        ):
            return None
        context, builder = self.context, self.builder
        model = context.data_model_manager[array]
        record = self.loadvar(value.name)
        shape, strides = (
            cgutils.unpack_tuple(builder, model.get(builder, record, field), array.ndim)
            for field in ("shape", "strides")
        )
        found = self.loadvar(index.name)
        found = context.cast(builder, found, self.typeof(index.name), at)
        if isinstance(at, types.BaseTuple):
            indexes = cgutils.unpack_tuple(builder, found, array.ndim)
        else:
            indexes = [found]
        pointer = cgutils.get_item_pointer2(
            context,
            builder,
            model.get(builder, record, "data"),
            shape,
            strides,
            array.layout,
            [
                arrayobj.fix_integer_index(context, builder, kind, i, size)
                for kind, i, size in zip(kinds, indexes, shape, strict=True)
            ],
            wraparound=False,
        )
        return array, pointer


class _InnerLibrary(JITCodeLibrary):
    """The code of an inner function, to be linked into kernels."""

    def _optimize_final_module(self) -> None:
        """Leave that to the kernels, where calls can be inlined."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _KernelLowering(typed_passes.NativeLowering):
    _name = "kernel_lowering"

    @property
    def lowering_class(self) -> Any:
        return _Lower


@register_pass(mutates_CFG=True, analysis_only=False)
class _InnerLowering(_KernelLowering):
    _name = "inner_lowering"

    def run_pass(self, state: Any) -> bool:
        context = state.targetctx
        name = state.func_id.func_qualname
        library = state.library = _InnerLibrary(context.codegen(), name)
        state.flags.no_compile = True
        super().run_pass(state)
        library.finalize()
        # What numba knows the function by. Python cannot call it.
        entry = _dynfunc.make_function(
            state.cr.fndesc.lookup_module(), name, "", 0, state.cr.env, (library,)
        )
        context.insert_user_function(entry, state.cr.fndesc, [library])
        state.cr = state.cr._replace(cfunc=entry)
        return True


class KernelCompiler(Compiler):
    """Compiles a kernel; for ``pipeline_class`` of `numba.njit`."""

    _lowering: Any = _KernelLowering

    def define_pipelines(self) -> Any:
        managers = super().define_pipelines()
        for manager in managers:
            manager.passes = [
                (self._lowering if step is typed_passes.NativeLowering else step, text)
                for step, text in manager.passes
                if step not in _UNUSED
            ]
            manager.finalize()
        return managers

    def _compile_core(self) -> Any:
        with _remembered_types():
            return super()._compile_core()


class InnerCompiler(KernelCompiler):
    """Compiles a function that only kernels call."""

    _lowering = _InnerLowering


_find_type = types.Function.get_call_type
_known: dict[str, dict[Any, Any]] = {}
_known_by: dict[int, tuple[Any, dict[Any, Any]]] = {}


def _recall_type(self: Any, context: Any, args: Any, kws: Any) -> Any:
    """Return the signature of an operator for these types, looked up once.

    What fits may depend on the flags of the function that is being compiled.
    """
    flags = ConfigStack.top_or_none()
    if id(flags) not in _known_by:
        _known_by[id(flags)] = flags, _known.setdefault(str(flags), {})
    known = _known_by[id(flags)][1]
    try:
        key = (id(self), id(context), *[kind._code for kind in args])
    except AttributeError:
        return _find_type(self, context, args, kws)
    if kws:
        return _find_type(self, context, args, kws)
    if key not in known:
        # The function is kept, too: nothing else may get its id.
        known[key] = self, _find_type(self, context, args, kws)
    return known[key][1]


@contextmanager
def _remembered_types() -> Iterator[None]:
    """Look types of operators up only once; numba's compiler lock is held."""
    function: Any = types.Function
    outer = function.get_call_type
    function.get_call_type = _recall_type
    try:
        yield
    finally:
        function.get_call_type = outer
