"""The `swift` command. `main` dispatches; each command lives in a module imported when called."""
