"""Decodes images with the library that `crit` consists of: paths on standard input, one JSON object a line on the other side."""
import json
import sys

import pycriu.images

for line in sys.stdin:
    path = line.rstrip("\n")
    try:
        with open(path, "rb") as image:
            print(json.dumps({"path": path, "image": pycriu.images.load(image)}))
    except Exception as error:  # whatever it is, the image could not be read
        print(json.dumps({"path": path, "error": f"{type(error).__name__}: {error}"}))
