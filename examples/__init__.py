"""Programs that use PanRT. They lie in the repository, not in the wheel."""
