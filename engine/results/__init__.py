"""What a session returns: the result, its overlay and colours, and the tracker."""
