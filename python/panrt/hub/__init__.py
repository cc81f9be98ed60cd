"""Models by name: a catalogue of published weights, their download, and a cache of what is made of them.

`panrt.load("coco")` looks a name up in `catalogue`, gets its weights by `weights`, which downloads them once, and has
them exported by `exports`, once for a precision. Nothing here imports PyTorch: the export runs in a process of its own.
"""
