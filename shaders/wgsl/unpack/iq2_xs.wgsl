// Spelled out: see there.
#import iq2
