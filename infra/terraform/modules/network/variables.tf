variable "name" {
  description = "Of everything here."
  type        = string
}

variable "cidr" {
  description = "Addresses of the network: a /16 to /20, of which each subnet gets a sixteenth."
  type        = string
  default     = "10.20.0.0/16"

  validation {
    condition     = can(cidrsubnet(var.cidr, 4, 15)) && tonumber(split("/", var.cidr)[1]) <= 20
    error_message = "cidr is an IPv4 range of at least 4,096 addresses, such as 10.20.0.0/16."
  }
}

variable "zones" {
  description = "Availability zones, two to six: GPUs are scarce, each zone is another chance."
  type        = list(string)

  validation {
    condition     = length(var.zones) >= 2 && length(var.zones) <= 6
    error_message = "Name two to six availability zones."
  }
}

variable "nat_per_zone" {
  description = "A NAT gateway for each zone, so that one zone's end doesn't cut off the others. One for all is cheaper."
  type        = bool
  default     = false
}
