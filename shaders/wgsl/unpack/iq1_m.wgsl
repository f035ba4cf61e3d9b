// Spelled out: see there.
#import iq1
