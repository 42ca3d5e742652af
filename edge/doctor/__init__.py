"""What edge-doctor looks at: each check turns facts about the machine into one line and the command that mends it.

examine ─► machine, storage, packages, engines, bundle, cameras, endpoint (facts → checks)
   └─────► probe (in a child process: loads an engine and runs the bundle), v4l2, known_bad (data)
"""
