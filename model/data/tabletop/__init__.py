"""The simulated tabletop: rooms with a table, drawn by PanRT itself, with exact panoptic labels.

Every mesh, texture, label and light comes from the code of this package; no asset of anybody else is used, so the
pictures, their labels and whatever is trained on them carry the licence of the project.

`classes` (what there is) and `clip` (reads a clip) need neither MuJoCo nor PyTorch; `dataset` renders and needs MuJoCo
and a software or hardware OpenGL (`render` names the packages).
"""
