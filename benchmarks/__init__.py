"""How fast the installed `notifier` is, beside what aiohttp itself can do on this machine in the same run."""
