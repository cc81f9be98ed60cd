"""Programs that use PanRT. They are part of the repository, not of the wheel."""
