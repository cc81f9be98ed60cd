"""Results of a session: segments and map, colours and overlay, and the tracker."""
