"""Where a worker's program runs: on one device or several, of one process or several."""

EXECUTORS = {
    "vmap": "all workers simulated on one device; with several devices, the runs are split over them",
    "pmap": "one worker per device, psum and pmean between them",
    "shard_map": "one worker per device of a mesh",
    "mesh": "the vmapped program on sharded arrays: several workers per device, or several devices per worker",
}
ALONE = ("vmap", "pmap")  # run in one process, whatever others there are
