"""The simulated tabletop: rooms with a table, drawn by this code, with exact panoptic labels.

This code generates every mesh, texture, label and light; no third-party asset is used, so the images, their labels and
the models trained on them carry the licence of the project.

`classes` and `clip` (reads a clip) need neither MuJoCo nor PyTorch; `dataset` draws and needs MuJoCo and a software or
hardware OpenGL (`opengl` names the packages). `python -m examples.tabletop --help` lists the commands.
"""
