"""Read, look at, describe and write DICOM images: pure functions over pydicom, one grey picture at a time.

"PS3.x" is a part of the DICOM standard (dicomstandard.org/current). Compressed pixels are decoded by GDCM
(JPEG, JPEG-LS, JPEG 2000) and by pydicom (RLE). Not a medical device: never read a patient's film with this.
"""

from medimgen.dicom.describing import ATTRIBUTES, describe
from medimgen.dicom.film import DicomImage, Table, window
from medimgen.dicom.reading import PIXELS, read
from medimgen.dicom.writing import write

__all__ = ["ATTRIBUTES", "PIXELS", "DicomImage", "Table", "describe", "read", "window", "write"]
