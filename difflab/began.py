"""When this process began to read the sources of the package: no other module of it is imported before this one."""

import time


BEGAN = time.time()
