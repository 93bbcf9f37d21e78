"""What a network costs on a device, and the files that run there.."""
