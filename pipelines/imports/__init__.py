"""`ivcp import`: annotations and videos in the layouts that people have → a data set of the registry."""
