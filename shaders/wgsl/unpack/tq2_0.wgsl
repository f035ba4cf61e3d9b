// See there.
#import ternary
