"""What a workspace remembers: the manifest, settings, checksums, and where its stories come from."""
