"""How large a photo may be: as a file, at the edge, and in the served graph."""

# Any photo file, in training and at the edge.
MIN_FILE_BYTES = 32  # nothing smaller is a photo
MAX_FILE_BYTES = 50_000_000
MAX_JPEG_PIXELS = 100_000_000  # decoded at 1/2, 1/4 or 1/8 of the size; in training PNG too
MAX_SEGMENTS = 300  # of a JPEG's header; a depth map of 10 MB takes 153 of 64 KB

# The edge, the one reader of photos, reads what Pillow reads and reduces it to what may be sent.
# Limits by format: decoding may take 500 MB of memory.
EDGE_MAX_PIXELS = {
    "JPEG": MAX_JPEG_PIXELS,
    "PNG": 50_000_000,  # 4 bytes a pixel, and as much again to lay it on white
    "TIFF": 50_000_000,
    "BMP": 50_000_000,
    "GIF": 50_000_000,
    "WEBP": 25_000_000,  # 16 bytes a pixel: two canvases, a copy, and Pillow's image
    "HEIC": 25_000_000,  # 12 bytes a pixel
}
EDGE_MAX_SCANS_PIXELS = 50_000_000  # of a JPEG of several scans, with all coefficients in memory
EDGE_ALONE_PIXELS = 4_000_000  # what is larger when decoded is decoded one at a time
EDGE_MAX_SIDE_PX = 65_535  # of JPEG, GIF and WebP anyway; Pillow keeps 8 bytes per row
# as `decoding_cost` estimates it, twice as long as Pillow takes (except for a PNG of more than 15
# MB of empty deflate blocks, which the server's limit on request bodies keeps out)
EDGE_MAX_DECODE_NS = 2_000_000_000
# what the pixels of a PNG may take, as `decoding_cost.estimate_pixel_ns` estimates it: 48
# megapixels of RGB, 17 of 16 bits with transparency, and at most 1 s
EDGE_MAX_PNG_NS = 1_060_000_000
MAX_CHUNKS = 20_000  # of a PNG, walked in Python; 50 MB in chunks of 4 KB are 12,000
MAX_BLOCKS = 200_000  # of a GIF before its first frame, 255 bytes each
MAX_TIFF_VALUES = 100_000  # of one entry: strips of one row each, of the longest side, and more
# a 12-megapixel photo passes as it is, one of 48 at half its sides; far more than any encoder sees
SENT_MAX_PIXELS = 12_500_000

# The served graph, whose guard refuses the rest.
SERVED_MAX_BYTES = 10_000_000
# a 24-megapixel camera's photo passes; a 12,000 x 12,000 decompression bomb does not
SERVED_MAX_PIXELS = 25_000_000
# a phone's longest panorama; resizing keeps rows of the photo's full width in memory, and a PNG may
# be 1,000,000 wide
SERVED_MAX_SIDE_PX = 16_384
SERVED_MAX_DECODE_NS = 1_000_000_000  # on one core, as `decoding_cost` estimates it
