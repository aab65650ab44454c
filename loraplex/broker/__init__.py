"""Redis as seen by each kind of process: `api` enqueues and listens, `worker` takes and commits,
`scaler` observes and opens or closes. The shared truth is in `scripts/*.lua`."""
