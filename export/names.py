"""Layers are called what the network calls its modules, in PyTorch and in the exported graph alike: `decoder1.conv1`."""

from __future__ import annotations

import ast
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import onnx
    from torch import nn

SCOPES: Final = "pkg.torch.onnx.name_scopes"
CLASSES: Final = "pkg.torch.onnx.class_hierarchy"


def layer_names(network: nn.Module) -> dict[str, str]:
    """Path of every module without children -> its name: the path, or the Sequential's where it alone holds the weights in one."""
    from torch import nn

    modules = dict(network.named_modules())
    names = {path: path for path, module in modules.items() if not any(module.children())}
    for path, module in modules.items():
        weighted = [f"{path}.{key}" for key, child in module.named_children() if list(child.parameters())]
        if isinstance(module, nn.Sequential) and path and len(weighted) == 1 and weighted[0] in names:
            names[weighted[0]] = path
    return names


class Namer:
    """Gives each operation of one network a name of its own."""

    def __init__(self, network: nn.Module) -> None:
        self._leaves = layer_names(network)
        self._given: Counter[str] = Counter()

    def name(self, path: str, target: str) -> str:
        """The name of operation `target` ("aten.cat.default") met in the module at `path`; "_2" and so on where it is met again."""
        operation = target.split(".")[1]
        return self.unique(self._leaves.get(path) or (f"{path}.{operation}" if path else operation))

    def unique(self, name: str) -> str:
        """`name`, numbered from its second use on."""
        self._given[name] += 1
        return name if self._given[name] == 1 else f"{name}_{self._given[name]}"


def name_nodes(graph: onnx.GraphProto, network: nn.Module) -> None:
    """Rename the nodes of a freshly exported graph, from the module paths that the exporter leaves in their metadata."""
    namer = Namer(network)
    for node in graph.node:
        notes = {entry.key: entry.value for entry in node.metadata_props}
        scopes, classes = (ast.literal_eval(notes.get(key, "[]")) for key in (SCOPES, CLASSES))
        node.name = namer.name(scopes[-2], classes[-1]) if len(scopes) > 1 and classes else namer.unique(node.name)
