"""Where an exported model goes beside its directory: the hub, images, other engines."""
