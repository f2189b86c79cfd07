"""How large a photo may be: as a file, at the edge, and in the served graph."""

# Any photo file, in training and at the edge.
MIN_FILE_BYTES = 32  # nothing smaller is a photo
MAX_FILE_BYTES = 50_000_000
MAX_JPEG_PIXELS = 100_000_000  # decoded at 1/2, 1/4 or 1/8 of the size; in training PNG too
MAX_SEGMENTS = 300  # of a JPEG's header; 10 MB of depth map in the largest (64 KB) is 153

# The edge, which reads what Pillow reads and reduces it to what may be sent.
EDGE_MAX_OTHER_PIXELS = 50_000_000  # decoded at full size: up to 8 bytes a pixel
EDGE_MAX_SIDE_PX = 65_535  # of JPEG, GIF and WebP anyway; Pillow keeps 8 bytes a row
EDGE_MAX_CHUNKS = 20_000  # of a PNG, read in Python each; 50 MB in chunks of 4 KB are 12,000
EDGE_MAX_DECODE_NS = 2_000_000_000  # as `decoding_cost` estimates it
# a 12-megapixel photo passes as it is, one of 48 at half its sides; far more than any encoder sees
SENT_MAX_PIXELS = 12_500_000

# The served graph, whose guard refuses the rest.
SERVED_MAX_BYTES = 10_000_000
# a 24-megapixel camera's photo passes; a 12,000 x 12,000 decompression bomb does not
SERVED_MAX_PIXELS = 25_000_000
# as a phone's longest panorama; resizing holds rows of the photo's full width, and a PNG may be
# 1,000,000 wide
SERVED_MAX_SIDE_PX = 16_384
SERVED_MAX_DECODE_NS = 1_000_000_000  # on one core, as `decoding_cost` estimates it
