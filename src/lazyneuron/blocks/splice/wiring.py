"""What the forward of a replaced block would really call now, against what it called when it was replaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import dropout as _dropout
from torch.nn.modules import module as _torch_module

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.watch import Watch

_Link = tuple[str, nn.Module, str, nn.Module, type, Any, tuple[int, ...]]


class Wiring:
    """The modules of a block whose execution is replaced, and whether they are still the ones that it would use.

    Taken right after the replacement. Looking again costs about a microsecond: each module of the block must be where
    it was, of the class that it was, with the forward and the forward hooks that it had. Of a module that is the whole
    block, all that lies within counts, and nothing may be added.

    Args:
        block: the block.
        model: the model that it is in.
    """

    def __init__(self, block: MLPBlock, model: nn.Module) -> None:
        top = _top(block)
        self._top = model.get_submodule(top)
        self._whole = block.container is not None
        self._class = type(self._top)
        self._links = tuple(_links(block, model, top))
        parents = dict.fromkeys((*(self._top.modules() if self._whole else ()), *(link[1] for link in self._links)))
        self._families = tuple(
            (
                parent,
                len(parent._modules) if self._whole else -1,
                tuple(link for link in self._links if link[1] is parent),
            )
            for parent in parents
            if parent._modules
        )
        self._empty = tuple(
            (p, key) for p in parents if self._whole for key, child in p._modules.items() if child is None
        )
        site = block.site
        linked = site is not None and any(link[3] is site.function for link in self._links)
        self._held = None if site is None or linked else (site.owner, site.attribute)
        self._function = None if site is None or linked else site.function
        self._modes = tuple(dict.fromkeys((self._top, *(link[3] for link in self._links))))
        self._block = block
        self._replaced = self._modules_replaced()
        self._settings = [_settings(module) for module in self._replaced]
        self._forwards = [type(module).forward for module in self._replaced]

    def in_training(self) -> bool:
        """Is any module of the block in training mode, a single dropout included?"""
        for module in self._modes:  # noqa: SIM110 - a generator would take three times as long
            if module.training:
                return True
        return False

    def change(self) -> str | None:
        """What is no longer as it was, as a sentence, or None."""
        for parent, size, links in self._families:
            slots = parent._modules
            for name, _, key, child, kind, forward, hooks in links:
                if slots.get(key) is not child:
                    return f"{name} was replaced or wrapped after the acceleration."
                own = child.__dict__
                if type(child) is not kind or own.get("forward") is not forward:
                    return f"The code of {name} was replaced after the acceleration."
                if (own["_forward_hooks"] or own["_forward_pre_hooks"] or hooks) and _hooks(child) != hooks:
                    return f"The hooks of {name} changed after the acceleration."
            if size >= 0 and len(slots) != size:
                return f"A module was put into {self._block.name or 'the block'} after the acceleration."
        for parent, key in self._empty:
            if parent._modules.get(key) is not None:
                return f"A module was put into {self._block.name or 'the block'} after the acceleration."
        if self._held is not None and getattr(*self._held, None) != self._function:
            return f"The activation {self._held[1]} was replaced after the acceleration."
        if type(self._top) is not self._class:
            return f"The class of {self._block.name or 'the block'} was replaced after the acceleration."
        if _torch_module._global_forward_hooks or _torch_module._global_forward_pre_hooks:
            return "Hooks on all modules are registered, which a block that is executed as one would not call."
        return None

    def record(self, watch: Watch) -> bool:
        """Have a watch look at what :meth:`in_training` and :meth:`change` look at; False where it cannot.

        To be called where both find nothing.
        """
        for module in self._modes:
            watch.attribute(module, "training")
        for parent, size, links in self._families:
            if size >= 0:
                watch.sizes(parent, "_modules")
            for _, _, key, child, *_ in links:
                if child._forward_hooks or child._forward_pre_hooks:  # one could take the place of another
                    return False
                watch_child(watch, parent, key)
        for parent, key in self._empty:
            watch.held(parent, "_modules", key)
        if self._held is not None:
            owner, attribute = self._held
            if attribute not in vars(owner):
                return False
            watch.attribute(owner, attribute)
        watch.type_of(self._top)
        watch.sizes(_torch_module, "_global_forward_hooks", "_global_forward_pre_hooks")
        return True

    def settings_changed(self) -> bool:
        """Do plain attributes of its modules, such as a threshold, or the code of a class differ from what they were?

        Looked at where the block's execution replaces the code that reads them; torch's own layers and dropouts have
        none that count.
        """
        return any(
            type(module).forward is not forward or _settings(module, known) != known
            for module, forward, known in zip(self._replaced, self._forwards, self._settings, strict=True)
        )

    def _modules_replaced(self) -> tuple[nn.Module, ...]:
        """The modules whose code the execution stands for."""
        inside = self._modes if self._whole else [m for m in self._modes[1:] if not m._modules]
        site = self._block.site
        held = [] if site is None or not isinstance(site.function, nn.Module) else [site.function]
        return tuple(dict.fromkeys((*inside, *held)))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_forwards"}  # not all can be pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forwards = [type(module).forward for module in self._replaced]

    def original(self, x: Tensor) -> Any:
        """The block by its modules as they are now, hooks and adapters included."""
        if self._whole:
            return type(self._top).forward(self._top, x)
        block, site = self._block, self._block.site
        assert site is not None
        now: dict[str, Any] = {link[0]: link[1]._modules[link[2]] for link in self._links}
        h = now[block.up.name](x)
        a = getattr(site.owner, site.attribute)
        h = a(h) if block.gate is None else a(now[block.gate.name](x)) * h
        for name in block.dropouts:
            h = now[name](h)
        return now[block.down.name](h)


def watch_child(watch: Watch, parent: nn.Module, key: str) -> None:
    """The module under a key goes on to be this one, of this class, with this forward and as many forward hooks."""
    child = parent._modules[key]
    watch.held(parent, "_modules", key)
    watch.type_of(child)
    watch.attribute(child, "forward")
    watch.sizes(child, "_forward_hooks", "_forward_pre_hooks")


def _top(block: MLPBlock) -> str:
    """The module within which everything of the block lies."""
    if block.container is not None:
        return block.container
    paths = [name.split(".") for name in (*(site.name for site in block.linears), *block.dropouts)]
    paths = [path[:-1] for path in paths] + ([] if block.site is None else [block.site.owner_name.split(".")])
    common: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common)


def _links(block: MLPBlock, model: nn.Module, top: str) -> Iterator[_Link]:
    """Every module on the way from the top to the block's layers, activation module and dropouts, each once."""
    names = [*(site.name for site in block.linears), *block.dropouts]
    site = block.site
    if block.container is not None:
        inside_top = model.get_submodule(top).named_modules(prefix=top, remove_duplicate=False)
        names = [name for name, module in inside_top if name != top]
    elif site is not None:
        inside = site.owner_name == top or site.owner_name.startswith(f"{top}." if top else "")
        held = [f"{site.owner_name}.{site.attribute}".lstrip(".")] if isinstance(site.function, nn.Module) else []
        names += (held or [site.owner_name]) if inside else []
    seen = set()
    for name in names:
        parent, way = model.get_submodule(top), top
        for key in name[len(top) :].strip(".").split("."):
            if not key:
                continue
            way = f"{way}.{key}".lstrip(".")
            child = parent._modules[key]
            assert child is not None
            if way not in seen:
                seen.add(way)
                yield way, parent, key, child, type(child), child.__dict__.get("forward"), _hooks(child)
            parent = child


def _hooks(module: nn.Module) -> tuple[int, ...]:
    hooks = (*module._forward_hooks.items(), *module._forward_pre_hooks.items())
    return tuple(number for number, hook in hooks if not getattr(hook, "only_in_training", False))


def _settings(module: nn.Module, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """Its plain attributes; of those that begin with an underscore only the known ones, since tools leave marks."""
    if isinstance(module, _dropout._DropoutNd) or type(module).forward is nn.Linear.forward:
        return {}
    return {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, (bool, int, float, str, Activation))
        and key != "training"
        and (known is None or key in known or not key.startswith("_"))
    }
