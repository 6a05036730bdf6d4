"""Where tasks run. Every executor has the same one method: `run(tasks) -> results`."""
