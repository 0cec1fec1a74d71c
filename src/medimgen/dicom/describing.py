"""What a DICOM header says about a person."""

from medimgen.dicom.reading import PIXELS, noting, open_dataset

# keyword, group, does it identify a person, why. The letters are the Basic Profile's action in PS3.15 Table
# E.1-1 (2024b): X remove, Z empty, D dummy, U new UID. "not listed": the profile leaves it in place.
ATTRIBUTES = """
PatientName|patient|yes|Z: the name itself
PatientID|patient|yes|Z/D: the hospital number leads straight to the record
OtherPatientIDs|patient|yes|X: further numbers of the same person
OtherPatientNames|patient|yes|X: maiden name or alias
PatientAddress|patient|yes|X: where the person lives
PatientTelephoneNumbers|patient|yes|X: reaches the person
PatientBirthDate|patient|with other data|Z: with sex and postcode it singles out most people
PatientSex|patient|with other data|Z: halves the crowd
PatientAge|patient|with other data|X: narrows the crowd; a very high age alone may do
PatientSize|patient|with other data|X: height narrows the crowd
PatientWeight|patient|with other data|X: narrows the crowd
EthnicGroup|patient|with other data|X: narrows the crowd
PatientComments|patient|with other data|X: free text may hold anything
AdditionalPatientHistory|patient|with other data|X: free text may hold anything
PatientIdentityRemoved|patient|no|not listed: says whether someone has cleaned the file
StudyDate|examination|with other data|Z: the day of a visit, matched with an appointment list
StudyTime|examination|with other data|Z: the minute of a visit
SeriesDate|examination|with other data|X/D: as the study's date
AcquisitionDate|examination|with other data|X/Z: as the study's date
ContentDate|examination|with other data|Z/D: as the study's date
AccessionNumber|examination|yes|Z: the order number leads straight to the record
StudyID|examination|with other data|Z: a number of the department's own
StudyDescription|examination|with other data|X: free text may hold anything
SeriesDescription|examination|with other data|X: free text may hold anything
ProtocolName|examination|with other data|X/D: typed by people; may hold anything
ReferringPhysicianName|examination|with other data|Z: names a doctor, and so a practice and its patients
PerformingPhysicianName|examination|with other data|X: names a doctor
NameOfPhysiciansReadingStudy|examination|with other data|X: names a doctor
OperatorsName|examination|with other data|X/Z/D: names a radiographer
ImageComments|examination|with other data|X: free text may hold anything
DerivationDescription|examination|with other data|X: free text may hold anything
StudyInstanceUID|examination|with other data|U: unique in the world; the archive finds the person by it
SeriesInstanceUID|examination|with other data|U: unique in the world, as the study's
SOPInstanceUID|examination|with other data|U: unique in the world, as the study's
FrameOfReferenceUID|examination|with other data|U: unique in the world
SOPClassUID|examination|no|not listed: the kind of object
SyntheticData|examination|no|not listed: says whether any part of the content was made artificially
Modality|examination|no|not listed: the kind of machine
BodyPartExamined|examination|no|not listed: the part of the body
ViewPosition|examination|no|not listed: from which side the beam came
Laterality|examination|no|not listed: left or right
BurnedInAnnotation|examination|no|not listed: warns of text drawn into the pixels
InstitutionName|machine|with other data|X/Z/D: where the person was treated
InstitutionAddress|machine|with other data|X: where the person was treated
StationName|machine|with other data|X/Z/D: which room of which hospital
DeviceSerialNumber|machine|with other data|X/Z/D: which machine, hence which hospital
DetectorID|machine|with other data|X/D: which machine, hence which hospital
PlateID|machine|with other data|X: which machine, hence which hospital
Manufacturer|machine|no|not listed: who built the machine
ManufacturerModelName|machine|no|not listed: thousands of the same model exist
SoftwareVersions|machine|no|not listed: shared by many machines
KVP|machine|no|not listed: tube voltage in kilovolts
ExposureTime|machine|no|not listed: milliseconds of exposure
PhotometricInterpretation|machine|no|not listed: whether low values are dark or light
PixelSpacing|machine|no|not listed: millimetres between pixels
ImagerPixelSpacing|machine|no|not listed: millimetres between pixels at the detector
WindowCenter|machine|no|not listed: the brightness the maker suggests
WindowWidth|machine|no|not listed: the contrast the maker suggests
BitsStored|machine|no|not listed: shades of grey as a power of two
"""


def describe(path):
    """What a file says about the patient, the examination and the machine; works on files without pixels too.

    Returns a pandas DataFrame with the columns group (patient, examination, machine), attribute, tag, value,
    identifies ("yes", "with other data", "no") and why. Only attributes that the file holds at its top level
    are listed, "(empty)" when they have no value; then other people's names, the private attributes and the
    pixels. What identifies follows PS3.15 Table E.1-1 (Basic Application Level Confidentiality Profile); the
    split of its attributes into "yes" and "with other data" is this course's own reading. A table without a
    "yes" is no proof of anonymity. Raises CourseError as `read` does.
    """
    import pandas as pd

    with noting([]):
        ds, _ = open_dataset(path, [])
        known = [line.split("|") for line in ATTRIBUTES.strip().splitlines()]
        rows = [_row(ds[name], *rest) for name, *rest in known if name in ds]
        names = {name for name, *_ in known}
        rows += [
            _row(
                e,
                "examination",
                "yes" if e.tag.group == 0x0010 else "with other data",
                "a person's name (VR PN)",
            )
            for e in ds
            if e.VR == "PN" and e.keyword not in names
        ]
        if private := sum(e.tag.is_private for e in ds):
            why = "X: undocumented; a machine's maker may put anything there"
            rows.append(("machine", "Private attributes", "(odd group)", f"{private} of them", "with other data", why))
        if any(name in ds for name in PIXELS):
            why = "text drawn into the picture, or a face rebuilt from a head scan (PS3.15 E.3.1, E.3.2)"
            size = f"{ds.get('Rows', '?')} x {ds.get('Columns', '?')}"
            rows.append(("examination", "Pixel Data", "(7FE0,0010)", size, "with other data", why))
    return pd.DataFrame(rows, columns=["group", "attribute", "tag", "value", "identifies", "why"])


def _row(element, group, identifies, why):
    value = "(empty)" if element.is_empty else element.repval.strip("'") if element.VR == "UI" else str(element.value)
    value = value if len(value) <= 60 else value[:57] + "..."
    return group, element.name, str(element.tag).upper(), value, identifies, why
