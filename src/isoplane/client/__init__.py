"""How everything that is not the server talks to an API server, in process or over HTTP, through one Protocol."""
