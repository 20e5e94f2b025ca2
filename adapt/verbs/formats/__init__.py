"""Files of the formats that others read, written from what is told of pictures: by a model (`predict`) or by data (`convert`)."""
