"""Is a container right? The platform's part, played here: emulator, SDK local mode, payloads, a client."""
